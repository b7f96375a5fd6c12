class Market < ApplicationRecord
  has_many :orders
  has_many :trades

  validates :symbol, presence: true, uniqueness: true
  validates :tick_size, :lot_size, numericality: { greater_than: 0 }
end
