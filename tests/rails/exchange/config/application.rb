# A small Rails exchange on Debian's own packages: no Gemfile, what is installed is what runs.
require "digest"
require "rails"
require "active_model/railtie"
require "active_job/railtie"
require "active_record/railtie"
require "action_controller/railtie"
require "action_view/railtie"
require "action_cable/engine"

module Exchange
  class Application < Rails::Application
    config.root = File.expand_path("..", __dir__)
    config.load_defaults 6.1
    config.eager_load = true
    config.consider_all_requests_local = false
    config.secret_key_base = ENV.fetch("SECRET_KEY_BASE") { SecureRandom.hex(64) }

    # Log lines of a request carry the id that the proxy gave it.
    config.logger = ActiveSupport::TaggedLogging.new(ActiveSupport::Logger.new($stderr))
    config.log_level = ENV.fetch("EXCHANGE_LOG_LEVEL", "warn").to_sym
    config.log_tags = [:request_id]

    config.active_record.dump_schema_after_migration = false
    config.active_job.queue_adapter = :async

    # Whether orders lock money in their members' accounts.
    config.x.reserve_funds = ENV["RESERVE_FUNDS"] == "1"

    # The browser's Origin must be the host that Rails was asked as: a proxy that changes Host
    # breaks every form.
    config.action_controller.forgery_protection_origin_check = true
    config.action_cable.allow_same_origin_as_host = true
    config.action_cable.mount_path = "/cable"
    config.public_file_server.enabled = true
  end
end
