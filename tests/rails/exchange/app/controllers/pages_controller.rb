class PagesController < ApplicationController
  def show
    session[:visits] = session.fetch(:visits, 0) + 1
    cookies[:theme] = "dark"
    @orders = member.orders.order(:id).last(100)
  end
end
