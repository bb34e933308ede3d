"""Deltas of a message, as OpenAI's API streams them: put together, and what is left of the whole.

Texts grow; lists grow too, unless their items are numbered by `index`: then each item grows by itself.
"""

from __future__ import annotations

from typing import Any

from goatherd.contracts.model import Json

_ONCE = ("id", "type", "role")
"""Texts that are said whole, and may be said again."""


def merge(whole: Json, piece: Json) -> None:
    """Puts a delta's fields to those before."""
    for name, value in piece.items():
        old = whole.get(name)
        if _numbered(value):
            by_index = {one["index"]: one for one in old or []}
            for one in value:
                merge(by_index.setdefault(one["index"], {}), one)
            whole[name] = [by_index[index] for index in sorted(by_index)]
        elif isinstance(value, list):
            whole[name] = [*(old or []), *value]
        elif isinstance(value, dict):
            whole[name] = dict(old or {})
            merge(whole[name], value)
        elif isinstance(value, str) and isinstance(old, str) and name not in _ONCE:
            whole[name] = old + value
        elif value is not None:
            whole[name] = value


def missing(whole: Json, shown: Json) -> Json:
    """The delta that makes the whole of what was shown. What was shown can't be taken back: where it is not
    the whole's beginning, nothing follows."""
    left = {name: _left(value, shown.get(name)) for name, value in whole.items()}
    return {name: value for name, value in left.items() if value not in (None, "", [], {})}


def _left(value: Any, old: Any) -> Any:
    if not old:
        return value
    if value == old:
        return None
    if _numbered(value):
        by_index = {one["index"]: one for one in old}
        items = [(one["index"], missing(one, by_index.get(one["index"], {}))) for one in value]
        return [{"index": index, **item} for index, item in items if item]
    if isinstance(value, dict):
        return missing(value, old)
    if isinstance(value, str | list) and value[: len(old)] == old:
        return value[len(old) :]
    return None


def _numbered(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "index" in one for one in value)
