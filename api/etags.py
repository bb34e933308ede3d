"""Entity tags: strong, and made from the very bytes that are sent, so that they can't be wrong."""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response

JSON = "application/json"


def etag_of(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def tagged(request: Request, content: bytes) -> Response:
    """A GET's answer with its ETag, or 304 without a body if that is what the client has."""
    tag = etag_of(content)
    known = request.headers.get("if-none-match")
    if known is not None and _matches_weakly(known, tag):
        return Response(status_code=304, headers={"etag": tag})
    return Response(content, media_type=JSON, headers={"etag": tag})


def matches(header: str, tag: str) -> bool:
    """An `If-Match` (RFC 9110, 13.1.1): strong comparison against each tag of the list, or `*`."""
    candidates = {candidate.strip() for candidate in header.split(",")}
    return tag in candidates or "*" in candidates


def _matches_weakly(header: str, tag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison against each tag of the list, or `*`."""
    candidates = {candidate.strip().removeprefix("W/") for candidate in header.split(",")}
    return tag in candidates or "*" in candidates
