class Order < ApplicationRecord
  SIDES = { buy: "bid", sell: "ask" }.freeze

  belongs_to :market
  belongs_to :member
  has_many :taken, -> { order(:id) }, class_name: "Trade", foreign_key: :taker_order_id,
    inverse_of: :taker_order

  enum side: SIDES, _scopes: false
  enum order_type: { limit: 1, market: 2 }, _scopes: false, _suffix: :order
  enum time_in_force: { gtc: 0, ioc: 1 }, _scopes: false
  enum state: { open: 100, filled: 200, cancelled: -100 }, _scopes: false

  validates :quantity, numericality: { greater_than: 0 }
  validates :remaining, numericality: { greater_than_or_equal_to: 0 }

  # Raises Funds::Insufficient.
  def self.place(market:, **attributes)
    market.with_lock do
      order = create!(market: market, remaining: attributes[:quantity], state: :open, **attributes)
      Funds.reserve(order)
      Matching.new(order).run
      order
    end
  end

  # False when it is not open any more.
  def cancel
    market.with_lock do
      lock!
      next false unless open?

      Funds.release(self)
      update!(state: :cancelled)
    end
  end

  # The orders that it can meet, in price-time order.
  def counterparts
    others = market.orders.where(side: buy? ? :sell : :buy, state: :open)
    others = others.where(buy? ? "price <= ?" : "price >= ?", price) if price
    others.order(price: buy? ? :asc : :desc, created_at: :asc, id: :asc)
  end

  def filled_quantity
    quantity - remaining
  end

  # `trades`: those in which it was the taker.
  def as_json(options = nil)
    trades = options&.fetch(:trades, nil) || taken
    {
      id: id,
      market: market.symbol,
      side: side,
      order_type: order_type,
      time_in_force: time_in_force,
      price: price,
      quantity: quantity,
      remaining_quantity: remaining,
      filled_quantity: filled_quantity,
      state: state,
      created_at: created_at,
      updated_at: updated_at,
      trades: trades.map { |trade| trade.slice(:price, :quantity, :maker_order_id) },
    }.as_json
  end
end
