"""Lists: which part is asked for, and how it is told.

`after` and `before` go by the order of the list itself: with `order=desc`, `after` gives older items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from activities.ports import Page
from api.errors import InvalidInput
from goatherd.contracts.chat import Label
from goatherd.contracts.ids import CHAT_ID, MESSAGE_ID
from goatherd.errors import MalformedCursor

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

_POSITION = rf"^([0-9]{{1,15}}|{MESSAGE_ID.strip('^$')})$"
_SESSIONS_AFTER = "Sessions after the one with this id."
_SESSIONS_BEFORE = "The sessions right before the one with this id. Not together with `after`."
_MESSAGES_AFTER = "Messages after the one with this `seq` or id."
_MESSAGES_BEFORE = "The messages right before the one with this `seq` or id. Not together with `after`."
_SEQ = re.compile(r"[0-9]{1,15}")


class Listed(Protocol):
    """What a list can hold."""

    @property
    def id(self) -> str: ...

    def model_dump_json(self) -> str: ...


Item = TypeVar("Item", bound=Listed)


def cursor_like(pattern: str) -> Callable[[dict[str, Any]], None]:
    """Tells a cursor's pattern without checking it: what doesn't match is a malformed cursor, not a 422."""

    def tell(schema: dict[str, Any]) -> None:
        schema["anyOf"] = [{"type": "string", "pattern": pattern}, {"type": "null"}]

    return tell


class ListQuery(BaseModel):
    """Query of every list. Unknown parameters are refused: a filter that is misspelt filters nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="At most so many items.")


class SessionQuery(ListQuery):
    after: str | None = Field(None, description=_SESSIONS_AFTER, json_schema_extra=cursor_like(CHAT_ID))
    before: str | None = Field(None, description=_SESSIONS_BEFORE, json_schema_extra=cursor_like(CHAT_ID))
    order: Literal["asc", "desc"] = Field("desc", description="By when they were made; newest first.")
    status: Literal["active", "ended"] | None = Field(None, description="Only those with this status.")
    label: Label | None = Field(None, description="Only those that have this label.")


class MessageQuery(ListQuery):
    after: str | None = Field(None, description=_MESSAGES_AFTER, json_schema_extra=cursor_like(_POSITION))
    before: str | None = Field(None, description=_MESSAGES_BEFORE, json_schema_extra=cursor_like(_POSITION))
    order: Literal["asc", "desc"] = Field("asc", description="By `seq`; oldest first.")


class TranscriptQuery(ListQuery):
    """Query of a session that is shown with its messages."""

    after: str | None = Field(None, description=_MESSAGES_AFTER, json_schema_extra=cursor_like(_POSITION))


def refuse_query(request: Request) -> None:
    """For routes that take no query."""
    if request.scope["query_string"]:
        errors = [
            {"parameter": name, "detail": "This route takes no parameters."} for name in request.query_params
        ]
        if errors:
            raise InvalidInput(errors, code="unknown-parameter")


def one_cursor(after: str | None, before: str | None) -> None:
    if after is not None and before is not None:
        raise MalformedCursor("Give `after` or `before`, not both.")


def session_cursor(text: str, is_session_id: Callable[[str], bool]) -> str:
    if not is_session_id(text):
        raise MalformedCursor("A cursor here is a session's id, such as `last_id` of the page before.")
    return text


def seq_cursor(text: str) -> int | None:
    """The number, if it is one."""
    return int(text) if _SEQ.fullmatch(text) else None


def bad_message_cursor() -> MalformedCursor:
    return MalformedCursor("A cursor here is the `seq` of a message, or the id of one of this session.")


async def load_page(
    load: Callable[[Page], Awaitable[list[Item]]],
    *,
    limit: int,
    descending: bool,
    after: str | int | None,
    before: str | int | None = None,
) -> tuple[list[Item], bool]:
    """The items of a page in the list's order, and whether there are more in the direction asked for.

    A page before a position is the part of the list that is next to it: one item too many is the first.
    """
    page = Page(limit=limit + 1, after=after, before=before, descending=descending)
    found = await load(page)
    has_more = len(found) > limit
    if not has_more:
        return found, False
    return (found[:limit] if before is None else found[1:]), True


def render_list(items: Sequence[Listed], has_more: bool) -> bytes:
    """The list object as JSON, from items that need no further look."""
    data = ",".join([item.model_dump_json() for item in items])
    # Ids that people choose may have what JSON escapes.
    first, last = (json.dumps(items[end].id) if items else "null" for end in (0, -1))
    more = "true" if has_more else "false"
    return (
        f'{{"object":"list","data":[{data}],"has_more":{more},"first_id":{first},"last_id":{last}}}'
    ).encode()


def list_response(
    request: Request,
    items: Sequence[Listed],
    has_more: bool,
    query: ListQuery,
    *,
    after: str | None,
    before: str | None = None,
) -> Response:
    headers = {"link": link} if (link := _links(request, items, has_more, query, after, before)) else {}
    return Response(render_list(items, has_more), media_type="application/json", headers=headers)


def _links(
    request: Request,
    items: Sequence[Listed],
    has_more: bool,
    query: ListQuery,
    after: str | None,
    before: str | None,
) -> str | None:
    """RFC 8288. What a cursor points at is itself on the other side, so there is a page that way."""
    if not items:
        return None
    kept = query.model_dump(exclude_unset=True, exclude_none=True, exclude={"after", "before"})
    path = request.url.path

    def link(rel: str, cursor: dict[str, str]) -> str:
        return f'<{path}?{urlencode(kept | cursor)}>; rel="{rel}"'

    links = []
    if has_more or before is not None:
        links.append(link("next", {"after": items[-1].id}))
    if (before is not None and has_more) or after is not None:
        links.append(link("prev", {"before": items[0].id}))
    return ", ".join(links) or None
