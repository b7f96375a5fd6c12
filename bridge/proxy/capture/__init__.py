"""Captures of order entry on their way to the shadow: kept, spooled, shipped; no loss is silent."""
