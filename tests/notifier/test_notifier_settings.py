"""What an operator sets for the notifier, and what it is composed of then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.notifier.__main__ import build, senders
from services.notifier.channels.email import mailbox
from services.notifier.compose import Channel
from services.notifier.settings import NotifierSettings
from shared.embedded import EmbeddedBus
from shared.settings import Settings, SettingsInvalid, load

SECRET = "whsec_" + "c2VjcmV0IGJ5dGVzIG9mIGEgdGVzdCwgMzIgb2YgdGhlbQ=="
ALL: dict[str, Any] = {
    "smtp_url": "smtp://localhost:2525",
    "slack_webhook_url": "https://hooks.slack.com/services/T/B/x",
    "automation_webhook_url": "https://automation.acme.example/baton",
    "automation_webhook_secret": SECRET,
}


def settings(**given: Any) -> NotifierSettings:
    return load(NotifierSettings, given)


def test_a_channel_without_settings_is_off() -> None:
    assert settings().channels == frozenset()
    assert settings(smtp_url=ALL["smtp_url"]).channels == {Channel.EMAIL}
    assert settings(**ALL).channels == set(Channel)
    assert set(senders(settings(**ALL))) == set(Channel)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "c2VjcmV0IGJ5dGVzIG9mIGEgdGVzdCwgMzIgb2YgdGhlbQ==", "whsec_???"]
)
def test_a_weak_webhook_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsInvalid, match="24 to 64 random bytes") as refused:
        settings(**{**ALL, "automation_webhook_secret": secret})
    assert "c2hvcnQ" not in str(refused.value)


def test_a_webhook_without_a_secret_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="BATON_AUTOMATION_WEBHOOK_SECRET"):
        settings(automation_webhook_url=ALL["automation_webhook_url"])


def test_what_may_be_private_is_named_by_host_and_port() -> None:
    given = settings(outbound_allow_private="localhost:9000 [::1]:80")
    assert given.outbound_allow_private == {"localhost:9000", "[::1]:80"}
    with pytest.raises(SettingsInvalid, match="host:port"):
        settings(outbound_allow_private="http://localhost:9000")


def test_a_sender_with_a_line_break_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="MAIL_FROM"):
        settings(mail_from="baton@acme.example\r\nBcc: x@y.example")


def test_secrets_are_masked() -> None:
    shown = repr(settings(**ALL))
    assert "hooks.slack.com" not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("url", "port", "encryption"),
    [
        ("smtp://localhost:2525", 2525, "none"),
        ("smtp://mail.acme.example", 25, "if offered"),
        ("smtp://baton:x@mail.acme.example:587", 587, "starttls"),
        ("smtp+starttls://mail.acme.example", 587, "starttls"),
        ("smtps://baton:x@mail.acme.example", 465, "tls"),
    ],
)
def test_a_password_never_travels_in_the_clear(url: str, port: int, encryption: str) -> None:
    box = mailbox(url, "baton@acme.example")
    assert (box.port, box.encryption, box.domain) == (port, encryption, "acme.example")


def test_a_password_may_hold_any_character() -> None:
    box = mailbox("smtp://ba%40ton:p%2Fw%3A@mail.acme.example", "baton@acme.example")
    assert (box.user, box.password) == ("ba@ton", "p/w:")
    assert "p/w:" not in repr(box)


@pytest.mark.parametrize("url", ["mail.acme.example:25", "http://mail.acme.example", "smtp://"])
def test_what_is_no_mail_server_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"smtp\+starttls"):
        settings(smtp_url=url)


async def test_the_service_has_its_roles(tmp_path: Path) -> None:
    base = Settings(data_directory=tmp_path)
    service = build(EmbeddedBus(base.event_log_path), base)
    assert set(service.roles) == {"consume", "relay", "deliver"}
    await service.database.close()
