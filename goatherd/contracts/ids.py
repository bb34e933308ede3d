"""Ids: a prefix, then a ULID in lower case. Opaque, URL-safe, and sorted by the time they were made.

`make_id` is pure, for workflows (which bring their own clock and randomness); `new_id` is for
everybody else. The layout is ULID's: 48 bits of Unix milliseconds, 80 random bits, Crockford base 32.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Literal

Kind = Literal["chat", "msg", "evt", "req", "task", "sub", "graph"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80

ID_LENGTH = 26
CHAT_ID = r"^chat_[0-9a-hjkmnp-tv-z]{26}$"
MESSAGE_ID = r"^msg_[0-9a-hjkmnp-tv-z]{26}$"
_MESSAGE = re.compile(MESSAGE_ID)
_CHAT = re.compile(CHAT_ID)


def make_id(kind: Kind, *, millis: int, entropy: int) -> str:
    """An id from the time in Unix milliseconds and 80 bits of `entropy` (more are cut off)."""
    value = (millis & (1 << 48) - 1) << _RANDOM_BITS | (entropy & (1 << _RANDOM_BITS) - 1)
    digits = [_ALPHABET[value >> shift & 31] for shift in range(5 * (ID_LENGTH - 1), -1, -5)]
    return f"{kind}_{''.join(digits)}"


def new_id(kind: Kind) -> str:
    """A fresh id from this machine's clock. Not for deterministic code."""
    return make_id(kind, millis=time.time_ns() // 1_000_000, entropy=secrets.randbits(_RANDOM_BITS))


def derived_id(kind: Kind, *parts: str, millis: int) -> str:
    """The same id for the same parts and time: for work that may be done twice but must count once."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return make_id(kind, millis=millis, entropy=int.from_bytes(digest[:10], "big"))


def is_message_id(text: str) -> bool:
    return _MESSAGE.fullmatch(text) is not None


def is_chat_id(text: str) -> bool:
    return _CHAT.fullmatch(text) is not None
