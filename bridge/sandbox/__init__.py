"""A small exchange with Rails' manners, a load generator and embedded servers: the demo, and the
tests' legacy.
"""
