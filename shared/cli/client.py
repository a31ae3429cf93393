"""The command line as a client of the running server: what writes goes through it, so that its rules hold."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.lock import running_server
from shared.settings import Settings

TIMEOUT_SECONDS = 30.0
KEY_FILE = "api-key"


class CallFailed(Exception):
    """The server answered, and not with what was asked for."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('title', '')}: {problem.get('detail', '')}".rstrip(": "))
        self.status = status
        self.problem = problem


class ServerUnreachable(Exception):
    """No server answered under this URL."""


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one server with one key."""

    url: str
    key: str | None

    def get(self, path: str) -> dict[str, Any]:
        """The answer's JSON. Raises `CallFailed`, `ServerUnreachable`."""
        return self._call("GET", path, None, {})

    def post(self, path: str, body: bytes | dict[str, Any], content_type: str = "application/json") -> dict[str, Any]:
        """The answer's JSON. Raises `CallFailed`, `ServerUnreachable`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._call("POST", path, content, {"Content-Type": content_type})

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        authorization = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(self.url + path, body, headers | authorization, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the key goes to the server alone
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise CallFailed(error.code, _json(error.read())) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            cause = getattr(error, "reason", error)
            raise ServerUnreachable(f"no server answers at {self.url} ({cause}); start one: baton up") from None


def client_of(settings: Settings, url: str | None, key: str | None) -> Client:
    """The client for the server under this URL, or for the one that runs on the data directory."""
    holder = running_server(settings.data_directory)
    key_file = settings.data_directory / KEY_FILE
    return Client((url or (holder.url if holder else settings.public_url)).rstrip("/"), key or _read(key_file))


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {"detail": content[:200].decode(errors="replace")}
    return value if isinstance(value, dict) else {"items": value}
