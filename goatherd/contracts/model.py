"""The base of every contract, and the field types that several of them share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer


class Contract(BaseModel):
    """A frozen model. Unknown fields are ignored, so that an older process reads a newer one's payload."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


def _millis(value: datetime) -> datetime:
    micros = value.microsecond // 1000 * 1000
    if value.utcoffset():
        value = value.astimezone(UTC)
    elif value.tzinfo is UTC and micros == value.microsecond:
        return value
    return value.replace(microsecond=micros, tzinfo=UTC)


def rfc3339(value: datetime) -> str:
    """`2026-11-22T15:53:00.123Z`: always UTC, always milliseconds, so that texts sort as times do."""
    return value.isoformat(timespec="milliseconds")[:23] + "Z"


# BSON keeps milliseconds; cutting at the door makes what is read equal to what was written.
Timestamp = Annotated[
    datetime, AfterValidator(_millis), PlainSerializer(rfc3339, return_type=str, when_used="json")
]

Json = dict[str, Any]
"""A JSON object whose shape another contract states."""
