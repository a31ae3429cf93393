"""What an operator may set for the notifier. A channel without its settings is off; nothing else has to be said."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from services.notifier.channels.automation import require_secret
from services.notifier.channels.email import mailbox
from services.notifier.compose import Channel
from shared.settings import Settings

HOURS = 3600.0
PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}")


class NotifierSettings(Settings):
    """`outbound_allow_private`: host:port, separated by white space, that may be private and may speak plain http."""

    smtp_url: SecretStr | None = None
    mail_from: str = Field(default="baton@localhost", pattern=r"^[^@\s<>]+@[^@\s<>]+$")
    slack_webhook_url: SecretStr | None = None
    automation_webhook_url: SecretStr | None = None
    automation_webhook_secret: SecretStr | None = None
    outbound_allow_private: Annotated[frozenset[str], NoDecode] = frozenset()
    console_url: str = Field(default_factory=lambda data: str(data.get("public_url", "")))
    # After each failed attempt; the last ones are for a receiver that is down overnight.
    delivery_back_off_seconds: Annotated[tuple[float, ...], NoDecode] = (
        5.0,
        30.0,
        120.0,
        600.0,
        0.5 * HOURS,
        1 * HOURS,
        2 * HOURS,
        4 * HOURS,
        8 * HOURS,
    )

    @field_validator("outbound_allow_private", mode="before")
    @classmethod
    def _split_places(cls, value: object) -> object:
        places = frozenset(value.split()) if isinstance(value, str) else value
        if isinstance(places, frozenset) and (wrong := sorted(place for place in places if not PLACE.fullmatch(place))):
            raise ValueError(f"{wrong[0]!r}: expected host:port, e.g. localhost:9000 or [::1]:9000")
        return places

    @field_validator("delivery_back_off_seconds", mode="before")
    @classmethod
    def _split_seconds(cls, value: object) -> object:
        return tuple(float(part) for part in value.split()) if isinstance(value, str) else value

    @field_validator("automation_webhook_secret")
    @classmethod
    def _is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            require_secret(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.automation_webhook_url is not None and self.automation_webhook_secret is None:
            raise ValueError("BATON_AUTOMATION_WEBHOOK_URL needs BATON_AUTOMATION_WEBHOOK_SECRET to sign with")
        if self.smtp_url is not None:
            mailbox(self.smtp_url.get_secret_value(), self.mail_from)
        return self

    @property
    def channels(self) -> frozenset[Channel]:
        """The channels that are configured."""
        given = {
            Channel.EMAIL: self.smtp_url,
            Channel.SLACK: self.slack_webhook_url,
            Channel.AUTOMATION: self.automation_webhook_url,
        }
        return frozenset(channel for channel, setting in given.items() if setting is not None)
