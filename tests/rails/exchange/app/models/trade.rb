class Trade < ApplicationRecord
  belongs_to :market
  belongs_to :maker_order, class_name: "Order"
  belongs_to :taker_order, class_name: "Order"
  belongs_to :maker, class_name: "Member"
  belongs_to :taker, class_name: "Member"

  enum taker_side: Order::SIDES, _scopes: false, _prefix: :taker

  after_create_commit { ActionCable.server.broadcast("market:#{market.symbol}", as_json) }

  def as_json(*)
    {
      id: id,
      market: market.symbol,
      price: price,
      quantity: quantity,
      taker_side: taker_side,
      created_at: created_at,
    }.as_json
  end
end
