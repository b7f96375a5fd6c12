# The exchange's own member, whose orders come from jobs and from the back office.
module House
  EMAIL = "house@example.com".freeze
  FIRST_PRICE = BigDecimal(100)

  # On both sides of the last trade; returns the orders.
  def self.quote(symbol, count, source:)
    member = Member.find_by!(email: EMAIL)
    market = Market.find_by!(symbol: symbol)
    last = market.trades.order(:id).last&.price || FIRST_PRICE
    Array.new(count) do |number|
      away = market.tick_size * (10 + number)
      form = OrderForm.new(
        member: member, market: symbol, source: source, side: number.even? ? "buy" : "sell",
        price: number.even? ? last - away : last + away, quantity: market.lot_size * 1000
      )
      form.place || raise(form.errors.full_messages.to_sentence)
    end
  end
end
