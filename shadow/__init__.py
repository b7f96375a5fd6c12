"""What would have happened, and does it agree? Reads the monolith, drives the engine, compares
both.
"""
