# Server-sent events by ActionController::Live: each one once a client has asked for it.
class EventsController < ActionController::API
  include ActionController::Live

  def index
    response.headers["Content-Type"] = "text/event-stream"
    response.headers["Last-Modified"] = Time.now.httpdate # or Rack::ETag would hold the body
    events = SSE.new(response.stream, event: "trade")
    Integer(params.fetch(:count, 3)).times do |number|
      Steps.wait(params[:name])
      events.write({ number: number }, id: number)
    end
  rescue ActionController::Live::ClientDisconnected, IOError
    nil # the reader has gone
  ensure
    response.stream.close
  end
end
