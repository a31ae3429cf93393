"""What `baton check` reads by age: accepted items and MQLs. Both only grow at their end, where an index costs little."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("inbox_by_age", "inbox", ["received_at"])
    op.create_index("mqls_newest", "mqls", ["created_at", "mql_id"])


def downgrade() -> None:
    op.drop_index("mqls_newest")
    op.drop_index("inbox_by_age")
