# What goes over the wire in Rails' several manners.
class WireController < ActionController::API
  # What Rails believes about a request.
  def whoami
    render json: {
      remote_ip: request.remote_ip,
      request_id: request.request_id,
      base_url: request.base_url,
      version: request.env["SERVER_PROTOCOL"],
      forwarded_for: request.headers["X-Forwarded-For"],
    }
  end

  # A Rack body of unknown length: Puma sends it chunked.
  def pieces
    headers["Content-Type"] = "text/plain"
    headers["Last-Modified"] = Time.at(0).httpdate # or Rack::ETag would hold the body
    self.response_body = Enumerator.new { |out| 5.times { |n| out << "piece #{n}\n" } }
  end

  def export
    send_file Rails.root.join("public/rates.csv"), type: "text/csv", filename: "rates.csv"
  end

  def statement
    send_data "a,b\n" * Integer(params.fetch(:rows, 10_000)), type: "text/csv", filename: "statement.csv"
  end

  # A form's file, or the plain body.
  def upload
    source = params[:file] || request.body
    digest = Digest::SHA256.new
    size = 0
    while (part = source.read(65_536))
      digest << part
      size += part.bytesize
    end
    render json: { size: size, sha256: digest.hexdigest, transfer: request.headers["Transfer-Encoding"] }
  end
end
