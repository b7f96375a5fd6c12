class QuoteJob < ActiveJob::Base
  def perform(symbol, count)
    House.quote(symbol, count, source: "job")
  end
end
