module Api
  module V1
    class OrdersController < BaseController
      wrap_parameters :order, format: [:json], include: OrderForm::FIELDS

      def index
        orders = member.orders.includes(:market, :taken).order(id: :desc).limit(100)
        render json: { orders: orders }
      end

      def create
        form = OrderForm.new(order_params.merge(member: member))
        if (order = form.place)
          render json: { order: order }, status: :created, location: api_v1_order_url(order)
        else
          render json: { errors: form.errors }, status: :unprocessable_entity
        end
      end

      def show
        render json: { order: order } if stale?(order)
      end

      def destroy
        if order.cancel
          render json: { order: order.as_json(trades: []) } # those of this request
        else
          render json: { errors: { state: ["is not open"] } }, status: :unprocessable_entity
        end
      end

      private

      def order_params
        params.require(:order).permit(*OrderForm::FIELDS)
      end

      def order
        @order ||= member.orders.find(params[:id])
      end
    end
  end
end
