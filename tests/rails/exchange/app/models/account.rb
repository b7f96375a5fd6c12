# A member's money in one currency: what can be spent, and what orders have locked.
class Account < ApplicationRecord
  belongs_to :member

  validates :balance, :locked, numericality: { greater_than_or_equal_to: 0 }
end
