"""The routes that it takes: a model, an index with pages, a search, a chat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from examples.ask_the_docs.pages import Page, changed
from examples.models.demo import DEMO, prepare

TIMEOUT = httpx.Timeout(180.0)
"""The first text waits until a worker has loaded the model."""
_PASSING = (429, 502, 503, 504)
_TRIES = 20
_WAIT_S = 60
_REPLY_S = 110
_ENDED = ("completed", "failed", "cancelled")


class Unanswered(Exception):
    """Something did not work; the text says what, and what to do."""


class Docs:
    """The documentation in one index of one Goatherd."""

    def __init__(self, http: httpx.AsyncClient, *, index: str, model: str) -> None:
        self._http = http
        self._model = model
        self.index = index

    async def made(self) -> None:
        """Sees to it that there are the model and the index."""
        if self._model in DEMO:
            await self._call("POST", "/models", json={"name": self._model, **_spec(self._model)})
        body = {
            "name": self.index,
            "model": self._model,
            "chunking": {"splitter": "markdown", "size": 900, "overlap": 0},
        }
        await self._call("POST", "/index", json=body)

    async def filled(self, pages: Iterable[Page]) -> int:
        """Sends the pages that have changed, removes those that are gone, and waits until all can be found;
        gives how many were sent."""
        known = {document["id"]: document["metadata"].get("digest") async for document in self._documents()}
        lacking, gone = changed(pages, known)
        if gone:
            await self._call("POST", f"/index/{self.index}/doc/__delete", json={"ids": gone})
        if lacking:
            kept = await self._put(lacking)
            if kept["refused"]:
                raise Unanswered(f"{kept['refused']} pages are refused: {kept['errors'][0]['detail']}")
        await self._taken_in()
        return len(lacking)

    async def found(self, question: str, *, k: int, per_document: bool = False) -> list[dict[str, Any]]:
        """By meaning and by words."""
        body = {"text": question, "k": k, "mode": "hybrid", "per_document": per_document}
        return list((await self._call("POST", f"/index/{self.index}/search", json=body))["hits"])

    async def answered(
        self, prompt: str, *, example: tuple[str, str] | None = None, chat_model: str | None = None
    ) -> str:
        """What a model says, in a session of its own. `example`: a prompt and its answer, as if that had been
        before."""
        session: dict[str, Any] = {
            "title": "Ask the docs",
            "generation": {"max_tokens": 120, "temperature": 0},
        }
        if chat_model is not None:
            session["model"] = chat_model
        path = f"/chat/{(await self._call('POST', '/chat', json=session))['id']}/message"
        for role, content in zip(("user", "assistant"), example or (), strict=False):
            await self._call("POST", path, json={"role": role, "content": content, "reply": False})
        posted = await self._call("POST", path, json={"content": prompt}, prefer=f"wait={_REPLY_S}")
        reply = posted["reply_message"]
        while reply is None or reply["status"] not in _ENDED:
            await asyncio.sleep(1.0)
            reply = await self._call("GET", f"{path}/{posted['reply']}")
        if reply["status"] != "completed":
            why = (reply.get("error") or {}).get("message", "")
            raise Unanswered(f"The chat's reply is {reply['status']}. {why}".strip())
        return str(reply["content"]).strip()

    async def _put(self, lacking: Sequence[Page]) -> dict[str, Any]:
        lines = "".join(f"{page.line()}\n" for page in lacking)
        path, params = f"/index/{self.index}/doc", {"wait": _WAIT_S}
        return await self._call("POST", path, params=params, content=lines, kind="application/x-ndjson")

    async def _taken_in(self) -> None:
        while True:
            counts = (await self._call("GET", f"/index/{self.index}"))["counts"]
            if counts["failed"]:
                params: dict[str, str | int] = {"failed": "true", "limit": 1}
                page = await self._call("GET", f"/index/{self.index}/doc", params=params)
                why = page["data"][0]["error"]["message"] if page["data"] else "they failed"
                raise Unanswered(f"{counts['failed']} pages can't be taken in: {why}")
            if not counts["pending"]:
                return
            await asyncio.sleep(0.5)

    async def _documents(self) -> AsyncIterator[dict[str, Any]]:
        params: dict[str, str | int] = {"limit": 100}
        while True:
            page = await self._call("GET", f"/index/{self.index}/doc", params=params)
            for document in page["data"]:
                yield document
            if not page["has_more"]:
                return
            params["after"] = page["last_id"]

    async def _call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, str | int] | None = None,
        content: str | None = None,
        kind: str | None = None,
        prefer: str | None = None,
    ) -> dict[str, Any]:
        """What passes is waited for. What is sent again counts once."""
        key = token_hex(16) if method == "POST" else None
        given = {"content-type": kind, "prefer": prefer, "idempotency-key": key}
        headers = {name: value for name, value in given.items() if value is not None}
        for _ in range(_TRIES):
            answer = await self._http.request(
                method, path, json=json, params=params, content=content, headers=headers
            )
            if answer.status_code not in _PASSING:
                break
            await asyncio.sleep(1.0)
        if answer.is_error:
            raise Unanswered(f"{method} {path}: {_why(answer)}")
        return dict(answer.json())


def _spec(model: str) -> dict[str, Any]:
    """Of a model that a package carries."""
    if DEMO[model].package is None:
        raise Unanswered(f"{model!r} can't be registered by a request.")
    return prepare(model, Path()).model_dump(mode="json", exclude_defaults=True)


def _why(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        details = [str(one["detail"]) for one in problem.get("errors") or ()]
        return " ".join([str(problem.get("detail") or problem["title"]), *details])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{answer.status_code} {answer.text[:200]}"
