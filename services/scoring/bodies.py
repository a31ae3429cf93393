"""Reading a request's body within bounds: bytes as they come, bytes when unpacked, and time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection

from fastapi import Request

from shared.web import Problem

READ_SECONDS = 10.0
CLOSE = {"Connection": "close"}


async def read_body(request: Request, *, limit: int, read_seconds: float = READ_SECONDS) -> bytes:
    """The exact body. Bytes are counted as they come, because Content-Length may lie. Problems 408, 413."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(read_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
    except TimeoutError:
        text = f"the body did not arrive within {read_seconds:g} s"
        raise Problem(408, "/problems/body-too-slow", "Body too slow", text, CLOSE) from None
    return b"".join(parts)


def unpacked(request: Request, body: bytes, *, limit: int) -> bytes:
    """The body without its Content-Encoding, `gzip` or none. Problems 400, 413, 415."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        text = "Content-Encoding is gzip, or left out"
        raise Problem(415, "/problems/unsupported-encoding", "Unsupported encoding", text)
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem(400, "/problems/malformed-body", "Malformed body", "the body is not gzip") from error
    if len(plain) > limit:
        raise too_large(limit)
    if not inflater.eof:
        raise Problem(400, "/problems/malformed-body", "Malformed body", "the gzip body is cut short")
    return plain


def require_type(request: Request, allowed: Collection[str]) -> None:
    """Problem 415 for a body of another media type; one that names none passes."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given and given not in allowed:
        text = f"Content-Type is one of {', '.join(sorted(allowed))}"
        raise Problem(415, "/problems/unsupported-type", "Unsupported media type", text)


def too_large(limit: int) -> Problem:
    text = f"the body may have {limit} bytes; send it in parts"
    return Problem(413, "/problems/body-too-large", "Body too large", text, CLOSE)
