"""A server that takes every connection and never says a word: a machine that hangs, or a network that swallows."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from shared.db import Database, Limits


@contextmanager
def silent_port() -> Iterator[int]:
    """A port of this machine whose connections stand, in the listener's queue, and are answered nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        yield listener.getsockname()[1]


def silent_database(port: int, service: str, limits: Limits | None = None) -> Database:
    """A PostgreSQL behind that port; nothing ever answers."""
    return Database(f"postgresql://nobody@127.0.0.1:{port}/none", service=service, limits=limits)
