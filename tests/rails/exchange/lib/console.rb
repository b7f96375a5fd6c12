# A Rails console for programs: evaluates each line of standard input, answers with a line of JSON.
require_relative "../config/environment"

session = binding
$stdout.sync = true
puts({ value: "ready" }.to_json)
$stdin.each_line do |line|
  puts({ value: session.eval(line) }.to_json)
rescue StandardError => error
  puts({ error: error.class.name, message: error.message }.to_json)
end
