"""The control store's schema, as Alembic migrations: PostgreSQL, schema `railswitch`, ours
alone.
"""
