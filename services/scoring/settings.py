"""What an operator may set for scoring: who may send, besides those with an API key."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, SecretStr

from shared.settings import Settings


class ScoringSettings(Settings):
    """Secrets by the name of their source, as JSON: `{"web": "..."}`.

    `segment_write_keys`: of the tracking API; `hubspot_secrets`: the client secrets that sign `/webhooks/{source}`.
    """

    segment_write_keys: Mapping[str, SecretStr] = Field(default_factory=dict)
    hubspot_secrets: Mapping[str, SecretStr] = Field(default_factory=dict)
