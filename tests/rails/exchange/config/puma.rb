# The port is the kernel's choice unless EXCHANGE_PORT says one, and is told on standard output.
# WEB_CONCURRENCY processes, each with its threads; 0: one process.
threads_count = ENV.fetch("EXCHANGE_THREADS", "8").to_i
threads threads_count, threads_count
workers ENV.fetch("WEB_CONCURRENCY", "0").to_i
environment ENV.fetch("RAILS_ENV", "production")
bind "tcp://127.0.0.1:#{ENV.fetch("EXCHANGE_PORT", "0")}"
bind "unix://#{ENV["EXCHANGE_SOCKET"]}" if ENV["EXCHANGE_SOCKET"]
