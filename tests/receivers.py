"""The other side of every notification: a real HTTP server and a real SMTP server, with ledgers of their own.

What a test says about deliveries it reads here, so that the notifier is not its own witness. A receiver misbehaves as
its `mode` says, per request, and may be told to behave again at any time.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession
from standardwebhooks import Webhook, WebhookVerificationError

HttpMode = Literal["ok", "500", "slow", "silent", "drip", "endless", "redirect", "410", "429", "lost"]
SmtpMode = Literal["ok", "451", "550", "lost", "slow"]

REASONS = {"ok": "200 OK", "500": "500 Oops", "410": "410 Gone", "429": "429 Too Many Requests"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in. `verdict`: of its Standard Webhooks signature; None where none was to be checked."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    verdict: bool | None

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id", "")

    @property
    def body_hash(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@dataclass
class HttpSink:
    """An HTTP receiver. `modes` by path come before `mode`; `retry_after` is what 429 says."""

    mode: HttpMode = "ok"
    modes: dict[str, HttpMode] = field(default_factory=dict)
    retry_after: str = "1"
    redirect_to: str = "http://169.254.169.254/"
    slow_seconds: float = 1.0
    secret: str | None = None
    port: int = 0
    ledger: list[Call] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        return f"http://{self.place}{path}"

    async def until(self, calls: int, seconds: float = 10.0) -> list[Call]:
        """The ledger once it has that many calls."""
        async with asyncio.timeout(seconds), self.arrived:
            await self.arrived.wait_for(lambda: len(self.ledger) >= calls)
        return list(self.ledger)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            call = await self._read(reader)
            async with self.arrived:
                self.ledger.append(call)
                self.arrived.notify_all()
            await self._answer(self.modes.get(call.path, self.mode), reader, writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller left: part of the game
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Call(head[0].split(" ")[1], headers, body, self._verdict(headers, body))

    def _verdict(self, headers: Mapping[str, str], body: bytes) -> bool | None:
        if self.secret is None:
            return None
        try:
            Webhook(self.secret).verify(body, dict(headers))
        except WebhookVerificationError:
            return False
        return True

    async def _answer(self, mode: HttpMode, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match mode:
            case "lost":
                return
            case "silent":
                await reader.read()  # until the caller gives up
            case "slow":
                await asyncio.sleep(self.slow_seconds)
                await _say(writer, "200 OK", b"ok")
            case "redirect":
                await _say(writer, "302 Found", b"", f"Location: {self.redirect_to}\r\n")
            case "429":
                await _say(writer, REASONS[mode], b"", f"Retry-After: {self.retry_after}\r\n")
            case "drip" | "endless":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    writer.write(b"x" * (1 if mode == "drip" else 65536))
                    await writer.drain()
                    await asyncio.sleep(0.05 if mode == "drip" else 0)
            case _:
                await _say(writer, REASONS[mode], b"ok" if mode == "ok" else b"no")


async def _say(writer: asyncio.StreamWriter, status: str, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


@asynccontextmanager
async def http_sink(sink: HttpSink | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpSink]:
    """A running HTTP receiver on a free port of 127.0.0.1."""
    sink = sink or HttpSink()
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(sink.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


@dataclass(frozen=True, slots=True)
class Mail:
    """One message as it came in."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=policy.default)

    @property
    def id(self) -> str:
        return str(self.message["Message-ID"])

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        return self._part("plain")

    @property
    def html(self) -> str:
        return self._part("html")

    def _part(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        return part.get_content() if part is not None else ""


@dataclass
class SmtpSink:
    """An SMTP receiver. `lost`: it took the message and broke the line. `refused`: addresses that get a 550."""

    mode: SmtpMode = "ok"
    refused: set[str] = field(default_factory=set)
    slow_seconds: float = 1.0
    port: int = 0
    ledger: list[Mail] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def until(self, mails: int, seconds: float = 10.0) -> list[Mail]:
        """The ledger once it has that many messages."""
        async with asyncio.timeout(seconds), self.arrived:
            await self.arrived.wait_for(lambda: len(self.ledger) >= mails)
        return list(self.ledger)

    async def handle_RCPT(
        self, server: SMTP, session: SmtpSession, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(
        self, server: SMTP, session: SmtpSession, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if address in self.refused:
            return "550 5.7.1 not one of our senders"
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        async with self.arrived:
            self.ledger.append(Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), content))
            self.arrived.notify_all()
        match self.mode:
            case "451":
                return "451 4.7.1 greylisted, try again"
            case "550":
                return "550 5.7.1 refused"
            case "slow":
                await asyncio.sleep(self.slow_seconds)
            case "lost":
                _abort(server)
            case "ok":
                pass
        return "250 OK"


@asynccontextmanager
async def smtp_sink(sink: SmtpSink | None = None) -> AsyncIterator[SmtpSink]:
    """A running SMTP receiver on a free port of 127.0.0.1."""
    sink = sink or SmtpSink()
    loop = asyncio.get_running_loop()
    protocols: list[SMTP] = []

    def protocol() -> SMTP:
        protocols.append(SMTP(sink, hostname="sink.test", loop=loop, enable_SMTPUTF8=True))
        return protocols[-1]

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for connection in protocols:
            _abort(connection)
        await server.wait_closed()


def _abort(connection: SMTP) -> None:
    if isinstance(connection.transport, asyncio.WriteTransport):
        connection.transport.abort()
