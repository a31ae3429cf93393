"""The spine, the agreement with its drafts and signatures, and what handoff keeps: handoffs, clocks, what sales did.

No foreign keys: a batch would pay for each row what `baton check` (I22) finds for all of them.
"""

import sqlalchemy as sa
from alembic import op

from shared.agreement_copies import create_agreements_table, drop_agreements_table
from shared.migrations import Instant, create_spine_tables, drop_spine_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_spine_tables()
    create_agreements_table()
    _create_drafts()
    _create_leads()
    _create_handoffs()
    _create_history()
    _create_clocks()
    _create_touches()
    _create_opportunities()
    _create_shares()


def downgrade() -> None:
    for table in ("shares", "opportunities", "touches", "clocks", "handoff_history", "handoffs", "leads"):
        op.drop_table(table)
    for table in ("agreement_signatures", "agreement_drafts"):
        op.drop_table(table)
    drop_agreements_table()
    drop_spine_tables()


def _create_drafts() -> None:
    """Contents of the agreement by their SHA-256; `version` once both parties signed it and it was published."""
    op.create_table(
        "agreement_drafts",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("agreement", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("version", sa.BigInteger, unique=True),
        sa.Column("published_at", Instant),
    )
    op.create_index("agreement_drafts_by_age", "agreement_drafts", ["created_at", "sha256"])
    op.create_table(
        "agreement_signatures",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("party", sa.Text, primary_key=True),
        sa.Column("signed_by", sa.Text, nullable=False),
        sa.Column("signed_at", Instant, nullable=False),
    )


def _create_leads() -> None:
    """Handoff's own row of a lead, made by whoever mentions it first. `merged_into` always names the root.

    So that opening a handoff reads only what there may be: `told_at`, when sales last did something for it (the
    greatest `occurred_at` of its touches and deals); `mqls`, how many came for it, repeated ones counted again.
    """
    op.create_table(
        "leads",
        sa.Column("lead_id", sa.Text, primary_key=True),
        sa.Column("merged_into", sa.Text),
        sa.Column("told_at", Instant),
        sa.Column("mqls", sa.BigInteger, nullable=False),
        sa.Column("erased_at", Instant),
    )
    absorbed = sa.text("merged_into IS NOT NULL")
    op.create_index("leads_absorbed", "leads", ["merged_into"], postgresql_where=absorbed, sqlite_where=absorbed)


def _create_handoffs() -> None:
    """`facts`: JSON, what the MQL said for routing and policies. `past_owners`: JSON, see `case.PastOwner`.
    `attempts`: touches of its owners. `wake_at`: the earliest of its open clocks. `traceparent`: the MQL's, so that
    what a clock causes days later belongs to the lead's trace.

    `route_at`: when the router looks at it next, `route_cause`: why; both are empty when nobody waits for it.
    """
    op.create_table(
        "handoffs",
        sa.Column("handoff_id", sa.Text, primary_key=True),
        sa.Column("mql_id", sa.Text, nullable=False, unique=True),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("opened_for", sa.Text, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("motion", sa.Text, nullable=False),
        sa.Column("cycle", sa.BigInteger, nullable=False),
        sa.Column("clause", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("agreement_version", sa.BigInteger, nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("qualified_at", Instant, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("pool", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("reassigns", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("past_owners", sa.Text, nullable=False),
        sa.Column("opened_at", Instant, nullable=False),
        sa.Column("assigned_at", Instant),
        sa.Column("ended_at", Instant),
        sa.Column("route_at", Instant),
        sa.Column("route_cause", sa.Text),
        sa.Column("wake_at", Instant),
    )
    op.create_index("handoffs_of_lead", "handoffs", ["lead_id"])
    op.create_index("handoffs_newest", "handoffs", ["opened_at", "handoff_id"])
    op.create_index("handoffs_by_owner", "handoffs", ["owner", "opened_at", "handoff_id"])
    op.create_index("handoffs_by_state", "handoffs", ["state", "opened_at", "handoff_id"])
    is_open = sa.text("ended_at IS NULL")
    op.create_index("handoffs_open", "handoffs", ["owner"], postgresql_where=is_open, sqlite_where=is_open)
    for column in ("wake_at", "route_at"):
        waits = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"handoffs_{column}", "handoffs", [column], postgresql_where=waits, sqlite_where=waits)


def _create_history() -> None:
    """One row a transition, numbered by the handoff's version. `decision`: JSON, why the router chose as it did."""
    op.create_table(
        "handoff_history",
        sa.Column("handoff_id", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("happened_at", Instant, nullable=False),
        sa.Column("recorded_at", Instant, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("touch_id", sa.Text),
        sa.Column("decision", sa.Text),
    )


def _create_clocks() -> None:
    """`ended_at`: met, or no longer awaited; a breached clock without it goes on. `warned`: percent last warned at."""
    op.create_table(
        "clocks",
        sa.Column("clock_id", sa.Text, primary_key=True),
        sa.Column("handoff_id", sa.Text, nullable=False),
        sa.Column("milestone", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("calendar", sa.Text, nullable=False),
        sa.Column("opened_version", sa.BigInteger, nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        sa.Column("wake_at", Instant),
        sa.Column("warned", sa.BigInteger, nullable=False),
        sa.Column("breached_at", Instant),
        sa.Column("met_at", Instant),
        sa.Column("ended_at", Instant),
        sa.Column("late_report", sa.Boolean, nullable=False),
    )
    is_open = sa.text("state = 'open'")
    op.create_index("clocks_of_handoff", "clocks", ["handoff_id"])
    op.create_index(
        "clocks_one_open",
        "clocks",
        ["handoff_id", "milestone", "subject"],
        unique=True,
        postgresql_where=is_open,
        sqlite_where=is_open,
    )


def _create_touches() -> None:
    """What sales did, for leads known or not yet. `lead_id`: the root it counts for, `came_in_under`: as told."""
    op.create_table(
        "touches",
        sa.Column("touch_id", sa.Text, primary_key=True),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("came_in_under", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("performer", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("outcome", sa.Text),
    )
    op.create_index("touches_of_lead", "touches", ["lead_id", "occurred_at"])


def _create_opportunities() -> None:
    """Deals as the CRM last told them; `handoff_id`: the one cycle a deal belongs to, if any."""
    op.create_table(
        "opportunities",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("opportunity_id", sa.Text, primary_key=True),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("came_in_under", sa.Text, nullable=False),
        sa.Column("handoff_id", sa.Text),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("amount", sa.Text),
        sa.Column("currency", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("product", sa.Text),
        sa.Column("motion", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
    )
    op.create_index("opportunities_of_lead", "opportunities", ["lead_id"])


def _create_shares() -> None:
    """How far each rep is ahead of (+) or behind (-) his fair share of a pool; `assigned`: how many he was given."""
    op.create_table(
        "shares",
        sa.Column("pool", sa.Text, primary_key=True),
        sa.Column("rep", sa.Text, primary_key=True),
        sa.Column("debt", sa.Float(53), nullable=False),
        sa.Column("assigned", sa.BigInteger, nullable=False),
    )
