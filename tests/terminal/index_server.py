"""A small stand-in for the API's index routes: one index in memory, which takes in when it is looked at."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.terminal.server import problem

INDEX = "docs"


@dataclass
class FakeIndex:
    """`takes`: how many documents are taken in between two looks; `unfit`: ids that can't be; `refused`: ids
    that are not even kept. `failures` are the next answers to documents."""

    docs: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: dict[str, Any] | None = None
    pending: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unfit: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    takes: int = 100
    state: str = "ready"
    there: bool = True
    failures: list[Response] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    hits: list[dict[str, Any]] = field(default_factory=list)
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> Starlette:
        one = "/index/{index}"
        actions = ("pause", "resume", "cancel", "retry", "rebuild")
        return Starlette(
            routes=[
                Route("/index", self.create, methods=["POST"]),
                Route("/index", self.list),
                Route(one, self.get),
                Route(one, self.delete, methods=["DELETE"]),
                *(Route(f"{one}/__{what}", self.act, methods=["POST"]) for what in actions),
                Route(f"{one}/doc", self.put, methods=["POST"]),
                Route(f"{one}/doc", self.documents),
                Route(f"{one}/doc/__delete", self.remove, methods=["POST"]),
                Route(f"{one}/doc/{{doc:path}}", self.document),
                Route(f"{one}/search", self.search, methods=["POST"]),
            ]
        )

    def counts(self) -> dict[str, int]:
        return {
            "documents": len(self.docs),
            "pending": len(self.pending),
            "failed": len(self.failed),
            "chunks": 2 * (len(self.docs) - len(self.pending) - len(self.failed)),
        }

    def shown(self, *, listed: bool = False) -> dict[str, Any]:
        spec = {
            "model": "minilm",
            "dimensions": 384,
            "metric": "cosine",
            "backend": "faiss",
            "lexical": "auto",
            "language": "en",
            "chunking": {"splitter": "text", "size": 1000},
            "faiss": {"kind": "auto", "nlist": None},
        }
        return {
            "object": "index",
            "id": "idx_01k9w2x6hj3v8m5r7t0q4n1b2c",
            "name": INDEX,
            "state": self.state,
            "version": 1,
            "building": None,
            "spec": spec | (self.created or {}),
            "counts": None if listed else self.counts(),
            "updated_at": "2026-11-22T12:00:00.000Z",
            "metadata": {},
        }

    def ids(self) -> list[str]:
        return sorted(self.docs)

    # -- routes

    async def create(self, request: Request) -> Response:
        self.created = await request.json()
        if self.created.get("backend") == "paper":
            return problem(422, "invalid-input", "The request is invalid.")
        return JSONResponse(self.shown(), 201)

    async def list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.shown(listed=True)], "has_more": False})

    async def get(self, request: Request) -> Response:
        if request.path_params["index"] != INDEX or not self.there:
            return problem(404, "not-found", f"There is no index {request.path_params['index']!r}.")
        shown = self.shown()
        if self.state != "paused":
            now, self.pending = self.pending[: self.takes], self.pending[self.takes :]
            self.failed += [id for id in now if id in self.unfit and id not in self.failed]
        self.looked.set()
        return JSONResponse(shown)

    async def delete(self, request: Request) -> Response:
        self.there = False
        return Response(status_code=204)

    async def act(self, request: Request) -> Response:
        what = request.url.path.rpartition("__")[2]
        self.calls.append((what, await request.json()))
        if what in ("retry", "cancel"):
            count, self.failed = len(self.failed), []
            given_up = 2 if self.state == "building" else None
            return JSONResponse({"documents": count, "index": self.shown(), "given_up": given_up})
        self.state = {"pause": "paused", "resume": "ready", "rebuild": "building"}[what]
        return JSONResponse(self.shown(), 202 if what == "rebuild" else 200)

    async def put(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/x-ndjson"
        if self.failures:
            return self.failures.pop(0)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        self.batches.append([line["id"] for line in lines])
        errors = [
            {"line": number, "id": line["id"], "pointer": "/text", "detail": "It has no text."}
            for number, line in enumerate(lines, 1)
            if line["id"] in self.refused
        ]
        if len(errors) == len(lines):
            details = [
                {"pointer": "/text", "detail": f"Line {one['line']}: {one['detail']}"} for one in errors
            ]
            body = {"status": 422, "code": "invalid-input", "detail": "It is invalid.", "errors": details}
            return JSONResponse(body, 422)
        for line in lines:
            if line["id"] not in self.refused:
                self.docs[line["id"]] = line
                self.pending.append(line["id"])
        return JSONResponse(
            {
                "received": len(lines),
                "kept": len(lines) - len(errors),
                "refused": len(errors),
                "errors": errors,
                "complete": False,
                "counts": self.counts(),
            },
            202,
        )

    async def documents(self, request: Request) -> Response:
        query = request.query_params
        ids = sorted(self.failed) if query.get("failed") == "true" else self.ids()
        rest = [id for id in ids if id > query.get("after", "")]
        page = [self._brief(id) for id in rest[: int(query["limit"])]]
        last = page[-1]["id"] if page else None
        return JSONResponse(
            {"object": "list", "data": page, "has_more": len(rest) > len(page), "last_id": last}
        )

    async def document(self, request: Request) -> Response:
        id = request.path_params["doc"]
        if id not in self.docs:
            return problem(404, "not-found", f"There is no document {id!r} in the index {INDEX!r}.")
        return JSONResponse(self._brief(id) | {"text": self.docs[id]["text"], "vector": None})

    async def remove(self, request: Request) -> Response:
        ids = (await request.json())["ids"]
        removed = [id for id in ids if self.docs.pop(id, None) is not None]
        return JSONResponse({"removed": len(removed), "missing": []})

    async def search(self, request: Request) -> Response:
        body = await request.json()
        self.calls.append(("search", body))
        mode = body.get("mode", "hybrid")
        return JSONResponse({"hits": self.hits, "mode": mode, "exact": True, "seq": 3, "took_ms": 4.2})

    def _brief(self, id: str) -> dict[str, Any]:
        failed = id in self.failed
        return {
            "object": "document",
            "id": id,
            "rev": 1,
            "status": "failed" if failed else "ready",
            "metadata": self.docs[id]["metadata"],
            "error": {"code": "model-failed", "message": "The model could not."} if failed else None,
            "updated_at": "2026-11-22T12:00:00.000Z",
        }
