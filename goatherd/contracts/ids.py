"""Ids: a prefix, then a ULID in lower case. Opaque, URL-safe, and sorted by the time they were made.

`make_id` is pure, for workflows (which bring their own clock and randomness); `new_id` is for
everybody else. The layout is ULID's: 48 bits of Unix milliseconds, 80 random bits, Crockford base 32.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

Kind = Literal["chat", "msg", "evt", "req", "task", "sub", "asg", "batch", "graph", "call", "job", "idx"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80

ID_LENGTH = 26
CHAT_ID = r"^chat_[0-9a-hjkmnp-tv-z]{26}$"
MESSAGE_ID = r"^msg_[0-9a-hjkmnp-tv-z]{26}$"
TASK_ID = r"^task_[0-9a-hjkmnp-tv-z]{26}$"
SUBTASK_ID = r"^sub_[0-9a-hjkmnp-tv-z]{26}$"
ASSIGNMENT_ID = r"^asg_[0-9a-hjkmnp-tv-z]{26}$"
JOB_ID = r"^job_[0-9a-hjkmnp-tv-z]{26}$"
INDEX_ID = r"^idx_[0-9a-hjkmnp-tv-z]{26}$"
_JOB = re.compile(JOB_ID)
_MESSAGE = re.compile(MESSAGE_ID)
_CHAT = re.compile(CHAT_ID)
_TASK = re.compile(TASK_ID)
_VALUES = {digit: value for value, digit in enumerate(_ALPHABET)}
_NUMBER_BITS = 40
_NUMBER_DIGITS = _NUMBER_BITS // 5


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


def is_job_id(text: str) -> bool:
    return _JOB.fullmatch(text) is not None


def is_chat_id(text: str) -> bool:
    return _CHAT.fullmatch(text) is not None


def is_task_id(text: str) -> bool:
    return _TASK.fullmatch(text) is not None


def made_at(text: str) -> datetime:
    """When an id was made, by the clock of whoever did."""
    millis = 0
    for digit in text.rpartition("_")[2][:10]:
        millis = millis << 5 | _VALUES[digit]
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=millis)


def subtask_id(task: str, number: int) -> str:
    """The id of a task's subtask: the task's time and half of its random bits, then the number.

    So the actor needs no table of ids, and ids of one task sort by number.
    """
    return f"sub_{_family(task)}{_digits(number)}"


def assignment_id(task: str, fence: int) -> str:
    """The id of the lease of a task that has this fence, made the same way."""
    return f"asg_{_family(task)}{_digits(fence)}"


def _family(task: str) -> str:
    return task[5 : 5 + ID_LENGTH - _NUMBER_DIGITS]


@lru_cache(maxsize=1_024)
def _digits(number: int) -> str:
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(_NUMBER_BITS - 5, -1, -5)])


def subtask_number(task: str, subtask: str) -> int | None:
    """The number of a task's subtask; None: the id can't be of this task."""
    if len(subtask) != 4 + ID_LENGTH or subtask[4:-_NUMBER_DIGITS] != _family(task):
        return None
    number = 0
    for digit in subtask[-_NUMBER_DIGITS:]:
        value = _VALUES.get(digit)
        if value is None:
            return None
        number = number << 5 | value
    return number
