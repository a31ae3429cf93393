"""E-mail over SMTP: plain text with an HTML alternative, the same bytes at each attempt.

The Message-ID comes from the delivery's id, so that mail programs drop the repeat that a lost answer causes; mails of
one handoff refer to one id, so that they are shown as a thread.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from typing import Literal
from urllib.parse import unquote, urlsplit

import aiosmtplib

from services.notifier.channels import Item, Send, SendFailed, SendRefused

SMTP_SECONDS = 20.0
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

Encryption = Literal["if offered", "starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The server that takes our mail, and who it is from."""

    host: str
    port: int
    encryption: Encryption
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def domain(self) -> str:
        return self.sender.rpartition("@")[2]


def mailbox(url: str, sender: str) -> Mailbox:
    """The mailbox of `smtp://user:password@host:port`. Raises `ValueError`, without quoting the URL.

    `smtps://`: TLS from the start; `smtp+starttls://`, or a password: STARTTLS or nothing; `smtp://`: STARTTLS where it
    is offered, and plain text to this very machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"expected one of {', '.join(PORTS)} as in smtp://user:password@mail.acme.example:587")
    return Mailbox(
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        encryption=_encryption(parts.scheme, parts.hostname, has_password=parts.password is not None),
        sender=sender,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def email(box: Mailbox, tls: ssl.SSLContext | None = None) -> Send:
    """The channel, ready to send. `tls`: whom to trust, if not the system's authorities."""
    return partial(_send, box, tls)


def build(box: Mailbox, item: Item) -> bytes:
    """The mail on the wire. Raises `ValueError` for a header with a line break."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = box.sender
    mail["To"] = item.message["to"]
    mail["Subject"] = item.message["subject"]
    mail["Date"] = item.created_at
    mail["Message-ID"] = f"<{item.delivery_id}@{box.domain}>"
    mail["References"] = f"<{item.handoff_id}@{box.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(item.message["text"], cte="quoted-printable")
    mail.add_alternative(item.message["html"], subtype="html", cte="quoted-printable")
    mail.set_boundary(item.delivery_id)
    return mail.as_bytes()


async def _send(box: Mailbox, tls: ssl.SSLContext | None, item: Item) -> None:
    try:
        content = build(box, item)
    except ValueError as error:
        raise SendRefused(f"no mail can be made of it: {error}") from error
    try:
        async with asyncio.timeout(SMTP_SECONDS):
            await aiosmtplib.send(
                content,
                sender=box.sender,
                recipients=[item.message["to"]],
                hostname=box.host,
                port=box.port,
                username=box.user,
                password=box.password,
                local_hostname=box.domain,  # or it would look up this machine's name, blocking
                timeout=SMTP_SECONDS,
                use_tls=box.encryption == "tls",
                start_tls={"if offered": None, "starttls": True}.get(box.encryption, False),
                tls_context=tls,
            )
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _judged(error.recipients[0]) from error
    except aiosmtplib.SMTPDataError as error:
        raise _judged(error) from error
    except aiosmtplib.SMTPSenderRefused as error:
        raise SendFailed(_said(error)) from error
    except (aiosmtplib.SMTPException, TimeoutError, OSError) as error:
        # A greeting, a log-in or a sender refused is about us, not about this mail: mend that, and it leaves after all.
        raise SendFailed(f"{type(error).__name__}: {error}") from error


def _judged(error: aiosmtplib.SMTPResponseException) -> SendFailed | SendRefused:
    """5xx about this mail is final, 4xx is not (RFC 5321, 4.2.1)."""
    return SendRefused(_said(error)) if error.code >= 500 else SendFailed(_said(error))


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    return f"SMTP {error.code}: {error.message}"


def _encryption(scheme: str, host: str, *, has_password: bool) -> Encryption:
    if scheme == "smtps":
        return "tls"
    if host in LOCAL and scheme == "smtp":
        return "none"
    return "starttls" if has_password or scheme == "smtp+starttls" else "if offered"
