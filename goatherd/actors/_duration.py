"""Durations as people write them: seconds, a timedelta, or a text such as `1.5s`, `200ms`, `5m`."""

from __future__ import annotations

import re
from datetime import timedelta

Duration = float | int | timedelta | str

_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(duration: Duration) -> float:
    """Raises `ValueError` for what is no duration, or a negative one."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        match = _TEXT.fullmatch(duration)
        if match is None:
            raise ValueError(f"{duration!r} is no duration: write `200ms`, `1.5s`, `5m`, `2h` or `1d`.")
        value = float(match.group(1)) * _UNITS[match.group(2)]
    else:
        value = float(duration)
    if not 0 <= value < float("inf"):
        raise ValueError(f"A duration must be finite and not negative, not {duration!r}.")
    return value
