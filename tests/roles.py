"""A cluster as it is run: each process started by its own command, and one address before them all.

Where every service has several processes, a request goes to those with the role `api`, in turn. A process that is gone
is passed over, as a load balancer does that asks for readiness.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import httpx

from tests.system import START_SECONDS, free_port

STOP_SECONDS = 40.0
HANDOFF = ("/v1/handoffs", "/v1/reps", "/v1/agreements")
NOTIFIER = ("/v1/deliveries", "/v1/channels")
HOP = {"host", "connection", "content-length", "transfer-encoding", "date", "server"}


@dataclass
class Running:
    """One process. `command` begins after the interpreter."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                env={**plain(), **self.environment, "BATON_HTTP_PORT": str(self.port), "BATON_HTTP_HOST": "127.0.0.1"},
                stdout=log,
                stderr=log,
            )

    def until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{self.name} is not ready: {self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=5.0, trust_env=False)
            return str(answer.json()["status"]) == "ready"
        except (httpx.TransportError, ValueError):
            return False

    def counted(self, metric: str) -> float:
        """The sum of a metric over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=5.0, trust_env=False).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric}{{", f"{metric} ")))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        self.process = None
        return code


def plain() -> dict[str, str]:
    """This environment without anything of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}


@contextmanager
def started(processes: Sequence[Running]) -> Iterator[None]:
    """All of them, ready; whatever still runs at the end is killed."""
    with ExitStack() as ended:
        for one in processes:
            ended.callback(_kill, one)
            one.start()
        for one in processes:
            one.until_ready()
        yield


def _kill(one: Running) -> None:
    if one.process is not None:
        one.stop(signal.SIGKILL)


@contextmanager
def gateway(doors: Mapping[str, Sequence[Running]], port: int) -> Iterator[dict[str, int]]:
    """An HTTP proxy on this port before the doors of each service; how many requests each process was given."""
    turns, given = count(), {one.name: 0 for door in doors.values() for one in door}
    client = httpx.Client(timeout=30.0, trust_env=False)

    class Gate(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            door = [one for one in doors[service_of(self.path)] if one.process is not None]
            one = door[next(turns) % len(door)]
            given[one.name] += 1
            answer = client.request(self.command, one.url + self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = forward

        def log_message(self, format: str, *args: object) -> None:
            """The processes have logs of their own."""

    with client, ThreadingHTTPServer(("127.0.0.1", port), Gate) as server:
        thread = threading.Thread(target=server.serve_forever, name="gateway", daemon=True)
        thread.start()
        try:
            yield given
        finally:
            server.shutdown()
            thread.join()


def service_of(path: str) -> str:
    """Whose path this is."""
    if path.startswith(HANDOFF):
        return "handoff"
    return "notifier" if path.startswith(NOTIFIER) else "scoring"
