"""Who writes past the proxy, where PostgreSQL has told."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    """How many operations were dark is still known, and not whose they were."""
    op.execute("DROP TABLE railswitch.dark_writer, railswitch.writer_seen")
