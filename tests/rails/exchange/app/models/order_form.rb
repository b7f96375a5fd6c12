# An order as it is asked for: what strong parameters let through, and what is wrong with it.
class OrderForm
  include ActiveModel::Model

  FIELDS = %i[market side order_type time_in_force price quantity].freeze
  NUMBER = { greater_than: 0, less_than_or_equal_to: 1_000_000_000, allow_blank: true }.freeze

  attr_accessor :member, :side, :order_type, :time_in_force, :price, :quantity, :source
  attr_reader :market
  delegate :tick_size, :lot_size, to: :market, allow_nil: true

  validates :market, presence: { message: :required }
  validates :side, inclusion: { in: Order.sides.keys }
  validates :order_type, inclusion: { in: Order.order_types.keys }
  with_options unless: :market_order? do
    validates :time_in_force, inclusion: { in: Order.time_in_forces.keys }
    validates :price, presence: true, numericality: NUMBER, multiple_of: :tick_size
  end
  validates :price, absence: true, if: :market_order?
  validates :quantity, presence: true, numericality: NUMBER, multiple_of: :lot_size

  def initialize(attributes = {})
    super({ order_type: "limit", time_in_force: "gtc", source: "api" }.merge(attributes))
  end

  def market=(symbol)
    @market = Market.find_by(symbol: symbol)
  end

  # The order; false, with errors, when it can't be placed.
  def place
    return false unless valid?

    Order.place(
      market: market, member: member, side: side, order_type: order_type,
      time_in_force: market_order? ? "ioc" : time_in_force, price: price.presence,
      quantity: BigDecimal(quantity.to_s), source: source
    )
  rescue Funds::Insufficient
    errors.add(:base, "insufficient funds")
    false
  end

  private

  def market_order?
    order_type == "market"
  end
end
