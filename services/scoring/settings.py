"""What an operator may set for scoring."""

from __future__ import annotations

from shared.settings import Settings


class ScoringSettings(Settings):
    """`segment_write_keys`: who may send to the tracking API; `hubspot_client_secret`: signs HubSpot's webhooks."""
