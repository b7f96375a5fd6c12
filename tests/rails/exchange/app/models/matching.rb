# Price-time priority, in the transaction that holds the row lock of the order's market.
class Matching
  def initialize(order)
    @order = order
  end

  def run
    while @order.remaining.positive? && (maker = @order.counterparts.lock.first)
      trade(maker)
    end
    close
  end

  private

  def trade(maker)
    quantity = [@order.remaining, maker.remaining].min
    maker.remaining -= quantity
    maker.state = :filled if maker.remaining.zero?
    maker.save!
    @order.remaining -= quantity
    Funds.settle(@order.taken.create!(
      market: @order.market, maker_order: maker, maker_id: maker.member_id,
      taker_id: @order.member_id, taker_side: @order.side, price: maker.price, quantity: quantity,
      total: maker.price * quantity
    ))
  end

  def close
    if @order.remaining.zero?
      @order.state = :filled
    elsif @order.ioc?
      Funds.release(@order)
      @order.state = :cancelled
    end
    @order.save!
  end
end
