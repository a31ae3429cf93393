"""The tables that every service has, and no others."""

from shared.migrations import create_spine_tables, drop_spine_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_spine_tables()


def downgrade() -> None:
    drop_spine_tables()
