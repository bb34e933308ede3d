"""What never gets into a log: secrets, and (unless asked for) what people and models say."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

REDACTED = "[redacted]"

_TEXTS = frozenset({"content", "text", "prompt", "reply_text"})
# A trailing `s` is wanted for credentials, not for tokens: a count of tokens is no secret.
_SECRET = re.compile(
    r"(^|[._-])(authorization|token|api[_-]?key|passwords?|passwd|secrets?|cookies?|credentials?)$",
    re.IGNORECASE,
)
_URI_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
# Pydantic quotes the rejected input in its errors: often a message.
_REJECTED_INPUT = re.compile(r"input_value=.*?, input_type=", re.DOTALL)


class Redactor:
    """Replaces secrets in an event, and texts unless `log_text`; what it is given it leaves as it was."""

    def __init__(self, *, log_text: bool) -> None:
        self._log_text = log_text

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        return self._mapping(event)

    def _mapping(self, mapping: Mapping[Any, Any]) -> dict[Any, Any]:
        return {
            key: REDACTED if isinstance(key, str) and self._hidden(key) else self._value(value)
            for key, value in mapping.items()
        }

    def _hidden(self, key: str) -> bool:
        if key.lower() in _TEXTS:
            return not self._log_text
        return _SECRET.search(key) is not None

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value

    def _string(self, text: str) -> str:
        if "@" in text:
            text = _URI_CREDENTIALS.sub(r"\1***@", text)
        lowered = text.lower()
        if "bearer " in lowered or "basic " in lowered:
            text = _BEARER.sub(rf"\1 {REDACTED}", text)
        if not self._log_text and "input_value=" in text:
            text = _REJECTED_INPUT.sub(f"input_value={REDACTED}, input_type=", text)
        return text
