"""What the door keeps: deliveries as they came, what is known of each item, who is who, contact details, quarantine."""

import sqlalchemy as sa
from alembic import op

from shared.migrations import Instant

revision = "0002"
down_revision = "0001"

TABLES = ("quarantine", "identity_conflicts", "contact_facts", "joined_leads", "identities", "inbox", "deliveries")


def upgrade() -> None:
    _create_inbox()
    _create_identities()
    _create_contact_facts()
    _create_quarantine()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def _create_inbox() -> None:
    """A delivery is one request's exact body. The inbox knows each item by (source, source id), for ever the first."""
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
    )
    op.create_index("deliveries_by_age", "deliveries", ["received_at"])
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("source_id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
    )


def _create_identities() -> None:
    """`joined_leads`: leads that strong evidence made one person, also before the scorer has merged them."""
    op.create_table(
        "identities",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
    )
    op.create_index("identities_of_lead", "identities", ["lead_id"])
    op.create_table(
        "joined_leads",
        sa.Column("lead_id", sa.Text, primary_key=True),
        sa.Column("person_id", sa.Text, nullable=False),
    )
    op.create_index("joined_leads_of_person", "joined_leads", ["person_id"])
    op.create_table(
        "identity_conflicts",
        sa.Column("conflict_id", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("lead_id", sa.Text, nullable=False),
        sa.Column("other_lead_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
    )
    op.create_index("identity_conflicts_by_age", "identity_conflicts", ["received_at", "conflict_id"])


def _create_contact_facts() -> None:
    """The latest `occurred_at` wins, then the greater `fact_id`; an empty value: the sender cleared it."""
    op.create_table(
        "contact_facts",
        sa.Column("lead_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("fact_id", sa.Text, nullable=False),
    )


def _create_quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("quarantine_id", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("item", sa.LargeBinary, nullable=False),
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
    )
    op.create_index("quarantine_by_age", "quarantine", ["received_at", "quarantine_id"])
