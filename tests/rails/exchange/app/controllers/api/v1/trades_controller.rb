module Api
  module V1
    # The newest trades of a market: what a page polls.
    class TradesController < BaseController
      def index
        market = Market.find_by!(symbol: params.require(:market))
        render json: { trades: market.trades.includes(:market).order(id: :desc).limit(100) }
      end
    end
  end
end
