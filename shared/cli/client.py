"""The command line as a client of the running server: what writes goes through it, so that its rules hold."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shared.lock import DataInUse, running_server
from shared.settings import Settings

TIMEOUT_SECONDS = 30.0
KEY_FILE = "api-key"


class CallFailed(Exception):
    """The server answered, and not with what was asked for."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        said = f"{status} {problem.get('title', '')}: {problem.get('detail', '')}".rstrip(": ")
        super().__init__(f"{said} (--key, else DATA/{KEY_FILE})" if status == 401 else said)
        self.status = status
        self.problem = problem


class ServerUnreachable(Exception):
    """No server answered under this URL."""


class UrlInvalid(ValueError):
    """This cannot be a server's URL."""


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
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            raise ServerUnreachable(f"no server answers at {self.url} ({cause}); start one: baton up") from None


def client_of(settings: Settings, url: str | None, key: str | None) -> Client:
    """The client for the server under this URL, or for the one of these settings.

    Raises `UrlInvalid`, `ServerUnreachable`: nobody runs on the data directory.
    """
    key_file = settings.data_directory / KEY_FILE
    where = _checked(url) if url else _server_of(settings)
    return Client(where.rstrip("/"), key or (key_file.read_text().strip() if key_file.exists() else None))


def _server_of(settings: Settings) -> str:
    """Embedded: who holds the data; cluster: the address it is set to serve."""
    if settings.profile == "cluster":
        return settings.public_url
    holder = running_server(settings.data_directory)
    if holder is None:
        where = settings.data_directory
        raise ServerUnreachable(f"no server runs on {where}; start one (baton up --data {where}), or give its --url")
    if not holder.url.startswith("http"):  # a command that writes, and is soon done
        raise DataInUse(settings.data_directory, holder)
    return holder.url


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isascii()
    except ValueError:
        is_one = False
    if not is_one or any(character.isspace() for character in url):
        raise UrlInvalid(f"--url {url}: expected the address of a server, e.g. http://127.0.0.1:8080")
    return url


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {"detail": content[:200].decode(errors="replace")}
    return value if isinstance(value, dict) else {"items": value}
