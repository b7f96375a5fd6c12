"""The monolith's database: its mapping, its changes in commit order, its open orders, its
numbers.
"""
