# The money that orders lock in their members' accounts, where `config.x.reserve_funds` says so.
module Funds
  class Insufficient < StandardError; end

  class << self
    # Raises Insufficient.
    def reserve(order)
      return unless on?

      amount = order.sell? ? order.quantity : cost(order)
      account(order.member_id, paid_in(order)) do |own|
        raise Insufficient if own.balance < amount

        own.balance -= amount
        own.locked += amount
      end
    end

    # What is still locked for an order that comes to its end.
    def release(order)
      return unless on?

      amount = order.sell? ? order.remaining : order.remaining * (order.price || 0)
      account(order.member_id, paid_in(order)) do |own|
        own.locked -= amount
        own.balance += amount
      end
    end

    # A buyer gets back what its own limit had locked beyond the trade's price.
    def settle(trade)
      return unless on?

      buyer, seller = [trade.taker_order, trade.maker_order].partition(&:buy?).map(&:first)
      limit = buyer.price || trade.price
      account(buyer.member_id, trade.market.quote) do |own|
        own.locked -= limit * trade.quantity
        own.balance += (limit - trade.price) * trade.quantity
      end
      account(seller.member_id, trade.market.quote) { |own| own.balance += trade.total }
      account(seller.member_id, trade.market.base) { |own| own.locked -= trade.quantity }
      account(buyer.member_id, trade.market.base) { |own| own.balance += trade.quantity }
    end

    private

    def on?
      Rails.configuration.x.reserve_funds
    end

    def paid_in(order)
      order.sell? ? order.market.base : order.market.quote
    end

    # What a buyer has to lock: of a market order, what it costs in the book as it is.
    def cost(order)
      return order.price * order.quantity if order.price

      left = order.quantity
      order.counterparts.sum(BigDecimal(0)) do |maker|
        taken = [left, maker.remaining].min
        left -= taken
        taken * maker.price
      end
    end

    def account(member_id, currency)
      own = Account.lock.find_by!(member_id: member_id, currency: currency)
      yield own
      own.save!
    end
  end
end
