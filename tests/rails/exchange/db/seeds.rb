MARKETS = [
  ["SOL-USD", "0.001", "0.0001"],
  ["BTC-USD", "0.01", "0.00000001"],
  ["ETH-USD", "0.01", "0.00000001"],
].freeze
MEMBERS = Integer(ENV.fetch("MEMBERS", "40"))

MARKETS.each do |symbol, tick_size, lot_size|
  base, quote = symbol.split("-")
  Market.create!(symbol: symbol, base: base, quote: quote, tick_size: tick_size, lot_size: lot_size)
end

now = { created_at: Time.current, updated_at: Time.current }
emails = [*(1..MEMBERS).map { |number| "member#{number}@example.com" }, House::EMAIL]
Member.insert_all!(emails.map { |email| { email: email, **now } })
currencies = Market.pluck(:base, :quote).flatten.uniq
accounts = Member.ids.product(currencies).map do |member, currency|
  { member_id: member, currency: currency, balance: 1_000_000, **now }
end
Account.insert_all!(accounts)
