module Api
  module V1
    # Has the house quote, by a job: its orders never pass any proxy.
    class QuotesController < BaseController
      def create
        QuoteJob.perform_later(params.require(:market), Integer(params.fetch(:count, 3)))
        head :accepted
      end
    end
  end
end
