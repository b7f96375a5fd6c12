class StepsController < ActionController::API
  def create
    Steps.allow(params[:name])
    head :no_content
  end
end
