"""Which dead letters went back to their topic already."""

from shared.migrations import create_redrives_table, drop_redrives_table

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_redrives_table()


def downgrade() -> None:
    drop_redrives_table()
