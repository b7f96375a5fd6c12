"""The data plane: HTTP in front of the monolith, the tee, the hold, and live orders to the
engine.
"""
