"""What the development servers of this folder share. Only Python's own library: a person runs them without a venv."""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
MISSING = 3  # exit code: this machine lacks something; the message says what
PR_SET_PDEATHSIG = 1


def cache() -> Path:
    """Where downloads and a person's servers are kept between runs: BATON_CACHE, else `.cache` of the repository."""
    return Path(os.environ.get("BATON_CACHE") or ROOT / ".cache").absolute()


def missing(what: str) -> NoReturn:
    """End, because this machine lacks something."""
    sys.stderr.write(f"{what}\n")
    sys.exit(MISSING)


def failed(what: str) -> NoReturn:
    """End, because the server did not do what it must."""
    sys.exit(what)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def parser(name: str, what: str, *, more: tuple[str, ...] = ()) -> argparse.ArgumentParser:
    """The command line both servers have: `start`, `stop`, `run`, and `more` commands of one of them."""
    command = argparse.ArgumentParser(
        prog=f"deploy/dev/{name}",
        description=f"{what} on 127.0.0.1 for development and tests. `start` leaves it running and prints its address; "
        f"`stop` ends it, its data stays; `run` prints the address and ends it with Ctrl-C.",
    )
    command.add_argument("command", choices=("start", "stop", "run", *more))
    command.add_argument(
        "--directory",
        type=Path,
        help=f"where its files are (start, stop: {cache() / name}; run: a new one, deleted at the end)",
    )
    command.add_argument("--port", type=int, help="(a free one; later starts in the same directory: the same one)")
    command.add_argument(
        "--until-eof",
        action="store_true",
        help="run: end also when standard input closes, as it does when the caller dies",
    )
    return command


@contextmanager
def directory(given: Path | None, name: str) -> Iterator[Path]:
    """The given directory, or a temporary one that is deleted afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    temporary = Path(tempfile.mkdtemp(prefix=f"baton-{name}-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """For `preexec_fn`: a server must not outlive the script that runs it, even one that was killed (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)  # before the fork: loading is not safe after it
    return lambda: library.prctl(PR_SET_PDEATHSIG, number)


def hold(server: subprocess.Popen[bytes], *, until_eof: bool) -> None:
    """Return when the server has ended, or, if asked, when standard input closed; a signal ends this script."""
    while server.poll() is None:
        watched = [sys.stdin] if until_eof else []
        if select.select(watched, [], [], 0.2)[0] and not sys.stdin.buffer.read1():
            return
    failed(f"the server ended by itself with exit code {server.returncode}")


def end(server: subprocess.Popen[bytes], *politely: signal.Signals) -> None:
    """Stop a server: each signal in turn, then SIGKILL, ten seconds for each."""
    for number in (*politely, signal.SIGKILL):
        if server.poll() is not None:
            return
        server.send_signal(number)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            continue


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP run the `finally` blocks as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
