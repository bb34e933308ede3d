"""The routes of the HTTP API that the commands for indexes need."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pydantic import Field

from goatherd.terminal._api import Api, Refused, _View

PAGE = 100
DOCUMENTS_PAGE = 1_000
_LINE = re.compile(r"Line (\d+): (.*)", re.DOTALL)


class IntakeView(_View):
    documents: int = 0
    pending: int = 0
    failed: int = 0
    chunks: int = 0


class IndexView(_View):
    """An index; lists have no `counts`."""

    id: str
    name: str
    state: str
    version: int = 1
    building: int | None = None
    counts: IntakeView = IntakeView()


class FaultView(_View):
    code: str = ""
    message: str = ""


class DocumentView(_View):
    id: str
    status: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    error: FaultView | None = None


class BadLineView(_View):
    line: int
    id: str | None = None
    pointer: str | None = None
    detail: str = ""


class KeptView(_View):
    """What became of documents that were sent together."""

    kept: int = 0
    refused: int = 0
    errors: list[BadLineView] = Field(default_factory=list)
    counts: IntakeView = IntakeView()


class _Removed(_View):
    removed: int = 0


class _Documents(_View):
    data: list[DocumentView]
    has_more: bool = False
    last_id: str | None = None


class _Page(_View):
    data: list[dict[str, Any]]
    has_more: bool = False
    last_id: str | None = None


class IndexApi(Api):
    """As `Api`: one client of one API. What is `raw` is as the API gives it."""

    async def create_index(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """raw. An index that is there already, and the same, is given as it is."""
        return dict((await self._send("POST", "/index", json=body, once=True)).json())

    async def index(self, index: str) -> IndexView:
        return await self._call(IndexView, "GET", _path(index))

    async def raw_index(self, index: str) -> dict[str, Any]:
        return dict((await self._send("GET", _path(index))).json())

    async def indexes(self) -> AsyncGenerator[dict[str, Any]]:
        """All of them, raw, by name; a page at a time."""
        params: dict[str, Any] = {"limit": PAGE}
        while True:
            page = await self._call(_Page, "GET", "/index", params=params)
            for index in page.data:
                yield index
            if not page.has_more or page.last_id is None:
                return
            params["after"] = page.last_id

    async def delete_index(self, index: str) -> None:
        await self._send("DELETE", _path(index))

    async def change(self, index: str, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """raw. `what`: pause, resume, cancel, retry or rebuild."""
        response = await self._send("POST", _path(index, f"__{what}"), json=body, once=True)
        return dict(response.json())

    async def put_lines(self, index: str, lines: bytes) -> KeptView:
        """Documents, a line each. The same again changes nothing, so it may be sent again."""
        try:
            response = await self._send("POST", f"{_path(index)}/doc", lines=lines)
        except Refused as refusal:
            errors = [_bad_line(fault) for fault in refusal.faults]
            if refusal.status != 422 or None in errors or not errors:
                raise
            # None of the lines is one that the index takes.
            counts = (await self.index(index)).counts
            refused = lines.count(b"\n")
            return KeptView(refused=refused, errors=[one for one in errors if one], counts=counts)
        return KeptView.model_validate_json(response.content)

    async def remove(self, index: str, ids: Sequence[str]) -> int:
        """How many there were."""
        path = f"{_path(index)}/doc/__delete"
        return (await self._call(_Removed, "POST", path, json={"ids": list(ids)})).removed

    async def raw_document(self, index: str, doc: str) -> dict[str, Any]:
        return dict((await self._send("GET", _path(index, "doc", doc))).json())

    async def documents(self, index: str, *, failed: bool = False) -> AsyncGenerator[DocumentView]:
        """All of them, without their texts, by id; a page at a time."""
        params: dict[str, Any] = {"limit": DOCUMENTS_PAGE} | ({"failed": "true"} if failed else {})
        while True:
            page = await self._call(_Documents, "GET", f"{_path(index)}/doc", params=params)
            for document in page.data:
                yield document
            if not page.has_more or page.last_id is None:
                return
            params["after"] = page.last_id

    async def search(self, index: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """raw."""
        return dict((await self._send("POST", f"{_path(index)}/search", json=body)).json())


def _bad_line(fault: str) -> BadLineView | None:
    said = _LINE.fullmatch(fault)
    return None if said is None else BadLineView(line=int(said[1]), detail=said[2])


def _path(index: str, *parts: str) -> str:
    return "/".join(["/index", *(quote(part, safe="") for part in (index, *parts))])
