"""The control store as the product first needs it."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

_TABLES = [
    "capture_gap",
    "latency",
    "known_hit",
    "verdict",
    "parity_count",
    "shadow_run",
    "shadow_instrument",
    "shadow_position",
    "flip_step",
    "flip",
    "stage_history",
    "stage",
]


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    """Everything that the comparison found, and the truth for stages, is gone after it."""
    for table in _TABLES:
        op.execute(f"DROP TABLE railswitch.{table}")
    op.execute("DROP SEQUENCE railswitch.stage_version")
