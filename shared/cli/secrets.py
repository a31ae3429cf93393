"""What the first start of `baton up` makes up, and every later one finds: an API key, and the services' secrets.

Files of mode 0600 in the data directory. A file appears whole or not at all, so that two first starts at once, or one
that was killed, leave one key and not two.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from shared.cli.client import KEY_FILE
from shared.security import Scope, entry_of, new_key
from shared.settings import SECRETS_FILE

WEB_SOURCE = "web"
HUBSPOT_SOURCE = "hubspot"


def new_webhook_secret() -> str:
    """A secret as the Standard Webhooks want it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


GENERATED: Mapping[str, Callable[[], object]] = {
    "segment_write_keys": lambda: {WEB_SOURCE: secrets.token_urlsafe(24)},
    "hubspot_secrets": lambda: {HUBSPOT_SOURCE: secrets.token_urlsafe(32)},
    "automation_webhook_secret": new_webhook_secret,
}


def generated_key(directory: Path) -> str:
    """The admin key of this data directory; made, with whatever secret is missing, if it is not there."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _kept(directory / KEY_FILE, lambda: new_key([Scope.ADMIN], name=f"local{secrets.token_hex(3)}")[0])
    made = {name: make() for name, make in GENERATED.items()}
    path = directory / SECRETS_FILE
    kept = json.loads(_kept(path, lambda: json.dumps({"api_keys": [entry_of(key, [Scope.ADMIN])], **made}, indent=2)))
    if made.keys() - kept.keys():
        _write(path, json.dumps(made | kept, indent=2))
    return key


def generated_write_key(directory: Path, source: str) -> str:
    """The Segment write key that was made up for this source."""
    return str(json.loads((directory / SECRETS_FILE).read_text())["segment_write_keys"][source])


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The file's content; whoever links it first has made it."""
    if not path.exists():
        draft = _draft(path, make())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another start was faster: its content counts
        finally:
            draft.unlink()
    return path.read_text().strip()


def _write(path: Path, content: str) -> None:
    _draft(path, content).replace(path)


def _draft(path: Path, content: str) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content + "\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
