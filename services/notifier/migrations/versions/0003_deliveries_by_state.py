"""What the list of deliveries of one state is read by; those of a lead have their index already."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("deliveries_by_state", "deliveries", ["state", "seq"])


def downgrade() -> None:
    op.drop_index("deliveries_by_state")
