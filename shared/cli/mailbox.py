"""The other end of the demo's notifications, on this machine: a mailbox, a Slack channel, marketing's automation.

Each is the real protocol on a free port of the loopback; the automation verifies every signature as a receiver should.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.smtp import SMTP, Envelope, Session
from standardwebhooks import Webhook, WebhookVerificationError

START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where the receivers listen, as the notifier's settings name them."""

    smtp_url: str
    slack_url: str
    automation_url: str
    http_place: str


@contextmanager
def mailbox(automation_secret: str) -> Iterator[Mailbox]:
    """All three, until the block ends."""
    webhook = Webhook(automation_secret)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(200 if self.path == "/slack" or _is_signed(webhook, body, self.headers.items()) else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """The demo's own output is the timeline."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as http, _smtp() as smtp_port:
        thread = threading.Thread(target=http.serve_forever, name="mailbox-http", daemon=True)
        thread.start()
        place = f"127.0.0.1:{http.server_address[1]}"
        try:
            yield Mailbox(f"smtp://127.0.0.1:{smtp_port}", f"http://{place}/slack", f"http://{place}/automation", place)
        finally:
            http.shutdown()
            thread.join()


def _is_signed(webhook: Webhook, body: bytes, headers: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> bool:
    try:
        webhook.verify(body.decode(), {name.lower(): value for name, value in headers})
    except (WebhookVerificationError, UnicodeDecodeError):
        return False
    return True


class _Accepting:
    """Takes every mail."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "250 taken"


@contextmanager
def _smtp() -> Iterator[int]:
    """An SMTP server in a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: SMTP(_Accepting(), hostname="mailbox.example", loop=loop), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever, name="mailbox-smtp", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECONDS)
        loop.close()
