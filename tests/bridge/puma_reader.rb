# Reads streams of requests as Puma does, and says what it found: one JSON line in, one out.
# In: a list of pieces (Base64), as they come from the socket. Out: [[method, target, body], ...]
# and how it ended.
require "base64"
require "json"
require "socket"
require "stringio"
require "tempfile"
require "puma"
require "puma/null_io"
require "puma/client"

def requests(pieces)
  ours, theirs = UNIXSocket.pair
  client = Puma::Client.new(theirs, {})
  found = []
  loop do
    until client.try_to_finish
      return found, "incomplete" if pieces.empty?
      ours.write(pieces.shift)
    end
    loop do
      env = client.env
      target = env["REQUEST_URI"] || [env["REQUEST_PATH"], env["QUERY_STRING"]].compact.join("?")
      found << [env["REQUEST_METHOD"], target, Base64.strict_encode64(client.body.read)]
      break unless client.reset(false)
    end
  end
rescue StandardError => error
  return found, "#{error.class}: #{error.message[0, 80]}"
ensure
  ours&.close
  theirs&.close
end

$stdout.sync = true
$stdin.each_line do |line|
  pieces = JSON.parse(line).map { |piece| Base64.strict_decode64(piece) }
  $stdout.puts(JSON.generate(requests(pieces)))
end
