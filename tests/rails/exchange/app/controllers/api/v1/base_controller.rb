module Api
  module V1
    # What programs talk to: JSON, no session. The gateway in front says which member asks.
    class BaseController < ActionController::API
      before_action { render json: { error: "Unauthorized" }, status: :unauthorized unless member }

      private

      def member
        @member ||= Member.find_by(id: request.headers["X-Member-Id"])
      end
    end
  end
end
