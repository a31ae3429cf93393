"""What `baton check` reads by age: accepted items and MQLs. Both grow at their end only: an index costs little."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index("inbox_by_age", "inbox", ["received_at"])
    op.create_index("mqls_newest", "mqls", ["created_at", "mql_id"])


def downgrade() -> None:
    op.drop_index("mqls_newest")
    op.drop_index("inbox_by_age")
