"""What a body says of itself, and what is in it: bounded once more when it is unpacked.

`shared.middleware.BoundedBody` has bounded it before, as it came, by `intake.BODY_LIMITS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

from fastapi import Request

from shared.middleware import BodyTooLarge
from shared.web import Problem


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
        raise BodyTooLarge(limit)
    if not inflater.eof:
        raise Problem(400, "/problems/malformed-body", "Malformed body", "the gzip body is cut short")
    return plain


def require_type(request: Request, allowed: Collection[str]) -> None:
    """Problem 415 for a body of another media type; one that names none passes."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given and given not in allowed:
        text = f"Content-Type is one of {', '.join(sorted(allowed))}"
        raise Problem(415, "/problems/unsupported-type", "Unsupported media type", text)
