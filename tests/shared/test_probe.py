"""The health check of a container: exit 0 for a 2xx, 1 for everything else, in a bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.lstrip("/")))
        self.end_headers()
        self.wfile.write(b"so it is")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def probe(port: int, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shared.probe", path],
        env={**os.environ, "BATON_HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("path", "code"), [("/200", 0), ("/204", 0), ("/302", 1), ("/404", 1), ("/503", 1)])
def test_only_a_2xx_is_healthy(port: int, path: str, code: int) -> None:
    assert probe(port, path).returncode == code


def test_nobody_there_is_not_healthy_and_says_so() -> None:
    done = probe(1, "/livez")
    assert (done.returncode, done.stdout) == (1, "ConnectionRefusedError: [Errno 111] Connection refused\n")
