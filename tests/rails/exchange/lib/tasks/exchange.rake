namespace :exchange do
  desc "Quotes ORDERS orders of the house on MARKET, as the people of the back office do"
  task quote: :environment do
    orders = House.quote(ENV.fetch("MARKET"), Integer(ENV.fetch("ORDERS", "3")), source: "rake")
    puts orders.map(&:id).join(" ")
  end
end
