# What the page's forms are sent to.
class OrdersController < ApplicationController
  def create
    fields = params.require(:order).permit(:market, :side, :price, :quantity)
    form = OrderForm.new(fields.merge(member: member, source: "page"))
    if (order = form.place)
      redirect_to root_path(placed: order.id), status: :see_other
    else
      render plain: form.errors.full_messages.to_sentence, status: :unprocessable_entity
    end
  end

  def destroy
    order = member.orders.find(params[:id])
    order.cancel
    redirect_to root_path(canceled: order.id), status: :see_other
  end
end
