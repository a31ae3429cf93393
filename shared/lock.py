"""One server a data directory: on the embedded profile a file lock decides who may write.

The lock belongs to the open file, so it ends with the process, however that ends. Beside it stand the holder's process
id and address: for the message of a second server, and for the command line, which writes through the first.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

LOCK_FILE = "server.lock"
ATTEMPTS = 5  # somebody who only looks holds the lock for a moment


@dataclass(frozen=True, slots=True)
class Holder:
    """The server that has the data directory."""

    pid: int
    url: str


class DataInUse(Exception):
    """Another server runs on this data directory."""

    def __init__(self, directory: Path, holder: Holder | None) -> None:
        who = f"process {holder.pid}, {holder.url}" if holder else "a process that is just starting"
        super().__init__(f"{directory} is in use by another Baton server ({who}); stop it, or give another --data")


@contextmanager
def sole_server(directory: Path, url: str | None = None) -> Iterator[Callable[[str], None]]:
    """Hold the data directory, making it if need be, for its owner alone. Raises `DataInUse`.

    Yields what tells the others our address, for who learns it only now.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / LOCK_FILE).open("a+") as file:
        if not any(_is_locked_now(file) for _ in range(ATTEMPTS)):
            raise DataInUse(directory, _holder(file))

        def tell(url: str) -> None:
            file.truncate(0)
            file.write(json.dumps(asdict(Holder(os.getpid(), url))))
            file.flush()

        file.truncate(0)
        if url is not None:
            tell(url)
        try:
            yield tell
        finally:
            file.truncate(0)


def running_server(directory: Path) -> Holder | None:
    """The server that holds the data directory now, if one does."""
    path = directory / LOCK_FILE
    if not path.exists():
        return None
    with path.open("r") as file:
        return None if _is_locked_now(file) else _holder(file)  # a lock just taken ends with the file


def _is_locked_now(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.02)
        return False
    return True


def _holder(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):
        return None
