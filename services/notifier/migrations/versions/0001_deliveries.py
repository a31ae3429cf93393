"""The spine, the agreement's copies, and what the notifier keeps: leads it may not name, MQLs, deliveries."""

import sqlalchemy as sa
from alembic import op

from shared.agreement_copies import create_agreements_table, drop_agreements_table
from shared.migrations import Instant, create_spine_tables, drop_spine_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_spine_tables()
    create_agreements_table()
    _create_leads()
    _create_mqls()
    _create_deliveries()


def downgrade() -> None:
    for table in ("deliveries", "mqls", "leads"):
        op.drop_table(table)
    drop_agreements_table()
    drop_spine_tables()


def _create_leads() -> None:
    """A row is the lock under which messages about a lead are made; `merged_into` always names the root."""
    op.create_table(
        "leads",
        sa.Column("lead_id", sa.Text, primary_key=True),
        sa.Column("merged_into", sa.Text),
        sa.Column("erased_at", Instant),
    )
    absorbed = sa.text("merged_into IS NOT NULL")
    op.create_index("leads_absorbed", "leads", ["merged_into"], postgresql_where=absorbed, sqlite_where=absorbed)


def _create_mqls() -> None:
    """`event`: the `mql.qualified` as it was read, JSON. It holds contact details and goes when the lead is erased."""
    op.create_table(
        "mqls",
        sa.Column("mql_id", sa.Text, primary_key=True),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
    )
    op.create_index("mqls_by_lead", "mqls", ["lead_id"])


def _create_deliveries() -> None:
    """One row per (event, receiver, channel). `next_attempt_at` of a claimed row is the end of its lease.

    `message`: JSON, what the channel sends, the same at each attempt. `line`: rows of one line go out one after the
    other, by `seq`. `version`: of the handoff the event spoke of.
    """
    op.create_table(
        "deliveries",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.Identity(),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("delivery_id", sa.Text, nullable=False, unique=True),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("handoff_id", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("line", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("stale_at", Instant, nullable=False),
        sa.Column("next_attempt_at", Instant),
        sa.Column("claim", sa.Text),
        sa.Column("delivered_at", Instant),
        sa.Column("last_error", sa.Text),
        sa.UniqueConstraint("event_id", "receiver", "channel", name="deliveries_once"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'dead', 'stale')", name="deliveries_state"),
        sa.CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="deliveries_pending"),
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "deliveries_due", "deliveries", ["channel", "next_attempt_at"], postgresql_where=pending, sqlite_where=pending
    )
    op.create_index("deliveries_line", "deliveries", ["line", "seq"], postgresql_where=pending, sqlite_where=pending)
    op.create_index("deliveries_by_lead", "deliveries", ["lead_id", "seq"])
    op.create_index("deliveries_by_handoff", "deliveries", ["handoff_id"])
