"""What Alembic runs for each command: the migrations, on the connection that `migrations`
opened.
"""

from __future__ import annotations

from alembic import context

from migrations import SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    version_table_schema=SCHEMA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
