"""The spine, the agreement's copies, and what the scorer keeps: leads, activities, scores, MQLs.

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
    _create_leads()
    _create_activities()
    _create_lead_scores()
    _create_mqls()


def downgrade() -> None:
    for table in ("mqls", "lead_scores", "activities", "leads"):
        op.drop_table(table)
    drop_agreements_table()
    drop_spine_tables()


def _create_leads() -> None:
    """`merged_into` always names the root; `agreement_version` 0: not scored yet; `facts`: JSON, see `score.Facts`.

    `last_received_at`: at least that; the scores' `as_of_at` may be later.
    """
    op.create_table(
        "leads",
        sa.Column("lead_id", sa.Text, primary_key=True),
        sa.Column("merged_into", sa.Text),
        sa.Column("agreement_version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_received_at", Instant),
        sa.Column("facts", sa.Text, nullable=False, server_default="{}"),
        sa.Column("created_at", Instant, nullable=False),
    )
    absorbed = sa.text("merged_into IS NOT NULL")
    op.create_index("leads_absorbed", "leads", ["merged_into"], postgresql_where=absorbed, sqlite_where=absorbed)
    root = sa.text("merged_into IS NULL")
    op.create_index("leads_by_version", "leads", ["agreement_version"], postgresql_where=root, sqlite_where=root)


def _create_activities() -> None:
    """`lead_id` is the root it counts for; `came_in_under` the lead it came for, so that a merge can be split."""
    op.create_table(
        "activities",
        sa.Column("activity_id", sa.Text, primary_key=True),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("came_in_under", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("agreement_version", sa.BigInteger, nullable=False),
        sa.Column("properties", sa.Text, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("occurred_at_replaced", sa.Boolean, nullable=False),
        sa.Column("qualify_any_age", sa.Boolean, nullable=False),
    )
    op.create_index("activities_of_lead", "activities", ["lead_id", "received_at"])


def _create_lead_scores() -> None:
    """`tally`: JSON, see `score.Tally`; what follows it is what was last displayed, points in hundredths."""
    op.create_table(
        "lead_scores",
        sa.Column("lead_id", sa.Text, primary_key=True),
        sa.Column("scorecard", sa.Text, primary_key=True),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("motion", sa.Text, nullable=False),
        sa.Column("agreement_version", sa.BigInteger, nullable=False),
        sa.Column("tally", sa.Text, nullable=False),
        sa.Column("score", sa.BigInteger, nullable=False),
        sa.Column("dimensions", sa.Text, nullable=False),
        sa.Column("bucket", sa.Text, nullable=False),
        sa.Column("cycle", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("as_of_at", Instant, nullable=False),
    )
    op.create_index("lead_scores_by_bucket", "lead_scores", ["bucket", "lead_id"])


def _create_mqls() -> None:
    """`made_for` never changes; `lead_id` is its root. Ended, or given way to another: it keeps no cycle open."""
    op.create_table(
        "mqls",
        sa.Column("mql_id", sa.Text, primary_key=True),
        sa.Column("made_for", sa.Text, nullable=False),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("motion", sa.Text, nullable=False),
        sa.Column("cycle", sa.BigInteger, nullable=False),
        sa.Column("scorecard", sa.Text, nullable=False),
        sa.Column("agreement_version", sa.BigInteger, nullable=False),
        sa.Column("clause", sa.Text, nullable=False),
        sa.Column("crossed_by", sa.Text, nullable=False),
        sa.Column("qualified_at", Instant, nullable=False),
        sa.Column("ended_at", Instant),
        sa.Column("gave_way_at", Instant),
        sa.Column("created_at", Instant, nullable=False),
        sa.UniqueConstraint("made_for", "product", "motion", "cycle", name="one_mql_a_cycle"),
    )
    op.create_index("mqls_of_lead", "mqls", ["lead_id"])
