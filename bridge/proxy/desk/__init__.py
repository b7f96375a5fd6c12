"""Who answers an order, and the answer: held, live and bulk orders, in the monolith's dialect."""
