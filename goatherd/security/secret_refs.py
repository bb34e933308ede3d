"""Secrets by reference: read where they are used, by whoever uses them, and shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from goatherd.errors import Unavailable

_MOST_BYTES = 1 << 16


def read_secret(reference: str) -> SecretStr:
    """The secret that `env:NAME` or `file:/path` refers to, without the line end that a file has.

    Raises:
        Unavailable: it is not there, empty, or can't be read (`model-unavailable`). The message has the
            reference and nothing of what was read.
    """
    kind, _, place = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(place, "").strip()
        if not secret:
            raise _missing(reference, f"the environment variable {place} is not set in this worker")
        return SecretStr(secret)
    if kind == "file":
        return SecretStr(_from_file(reference, Path(place)))
    raise _missing("…", "a secret is referred to by env:NAME or file:/path")


def _from_file(reference: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(_MOST_BYTES + 1).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
        raise _missing(reference, f"the file can't be read ({why})") from None
    if not secret or len(secret) > _MOST_BYTES:
        raise _missing(reference, "the file is empty or no secret")
    return secret


def _missing(reference: str, why: str) -> Unavailable:
    return Unavailable(
        f"the secret {reference} can't be had: {why}", code="model-unavailable", retry_after_s=60
    )
