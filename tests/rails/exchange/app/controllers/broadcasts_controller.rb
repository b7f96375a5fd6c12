class BroadcastsController < ActionController::API
  def create
    ActionCable.server.broadcast("market:#{params[:market]}", { text: params[:text] })
    head :no_content
  end
end
