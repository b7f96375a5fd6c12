"""One module for each migration; its SQL stands beside it."""
