# News of a market, and what its readers say to it.
class MarketChannel < ApplicationCable::Channel
  def subscribed
    params[:market].present? ? stream_from("market:#{params[:market]}") : reject
  end

  def echo(data)
    transmit({ visitor: visitor, text: data["text"] })
  end
end
