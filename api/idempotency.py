"""Idempotency-Key: a POST that is sent again counts once and is answered as the first time.

The ids of what a request creates are derived from the key's claim. When a holder dies half-way, or its
answer is not certain, whoever runs the request again uses the same ids, and finds what is there already.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from activities.ports import IdempotencyStore, StoredAnswer
from api.errors import InvalidInput, KeyInUse, error_headers, problem_fields, problem_response
from goatherd.contracts.ids import Kind, derived_id, new_id
from goatherd.errors import Conflict, GoatherdError, Invalid, NotFound
from goatherd.security.access import Principal
from goatherd.telemetry import get_logger

HEADER = "idempotency-key"
REPLAYED = "idempotency-replayed"
KEY_PATTERN = r"^[!-~]{1,255}$"
_KEY = re.compile(r"[!-~]{1,255}")
# Conflicts that are still there when the same request comes again; of others it may be free.
_LASTING = frozenset({"session-ended", "message-deleted", "task-closed", "lease-lost"})

log = get_logger(__name__)


_A_WHILE_MS = 5_000


class Ids:
    """The ids of what one request creates: new ones, or those that its key stands for."""

    def __init__(self, seed: str | None = None, millis: int = 0) -> None:
        self._seed = seed
        self._millis = millis

    @property
    def keyed(self) -> bool:
        """Whether the same request may come again, and mean the same."""
        return self._seed is not None

    @property
    def repeated(self) -> bool:
        """Whether they were first made a while ago, by a request that was never answered for certain."""
        return self._seed is not None and time.time() * 1000 - self._millis > _A_WHILE_MS

    def make(self, kind: Kind, part: str) -> str:
        """An id; `part` tells those of one kind apart within the request."""
        if self._seed is None:
            return new_id(kind)
        return derived_id(kind, self._seed, part, millis=self._millis)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered: now, or the first time."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False

    def response(self) -> Response:
        return Response(self.body, self.status, headers=self.all_headers(), media_type="application/json")

    def all_headers(self) -> dict[str, str]:
        return {**self.headers, REPLAYED: "true"} if self.replayed else dict(self.headers)


class StoredProblem(Exception):
    """The first answer was an error: here it is again."""

    def __init__(self, fields: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__(fields.get("code"))
        self.fields = fields
        self.headers = headers


class Idempotency:
    """Runs requests, each once for its key."""

    def __init__(self, store: IdempotencyStore, *, lease_s: float) -> None:
        """`lease_s`: after so long, a claim that was not settled may be taken over. That is safe while the
        first is still at work (the ids are the same), so it may be short."""
        self._store = store
        self._lease_s = lease_s

    async def run(
        self,
        request: Request,
        principal: Principal,
        body: bytes,
        action: Callable[[Ids], Awaitable[Answer]],
    ) -> Answer:
        """`action`'s answer, or the stored one of an earlier run.

        Raises, besides what `action` raises:
            InvalidInput: the key is malformed.
            Invalid: the key was used with another body (`idempotency-key-reused`).
            KeyInUse: another request with this key is running.
            StoredProblem: the earlier run's answer was an error.
        """
        given = request.headers.get(HEADER)
        if given is None:
            return await action(Ids())
        if not _KEY.fullmatch(given):
            raise InvalidInput(
                [{"header": "Idempotency-Key", "detail": "1 to 255 visible ASCII characters."}],
                code="idempotency-key-invalid",
            )
        key = _digest(principal.id, request.method, request.url.path, given)
        claim = await self._store.claim(key, _body_hash(body), lease_s=self._lease_s)
        if claim.outcome == "mismatch":
            raise Invalid(
                "This Idempotency-Key came with another body before. Use a new key for a new request.",
                code="idempotency-key-reused",
            )
        if claim.outcome == "running":
            raise KeyInUse(
                "The first request with this Idempotency-Key is still running. Ask again in a moment."
            )
        if claim.answer is not None:
            return _replay(claim.answer)
        return await self._first(key, action, Ids(claim.seed, claim.seed_millis))

    async def _first(self, key: str, action: Callable[[Ids], Awaitable[Answer]], ids: Ids) -> Answer:
        try:
            answer = await action(ids)
        except GoatherdError as error:
            if _is_definitive(error):
                fields = orjson.dumps(problem_fields(error)).decode()
                status = problem_fields(error)["status"]
                await self._settle(key, StoredAnswer(status, fields, error_headers(error)))
            else:
                # It may have been applied or not. A repetition has the same ids, so that it counts once.
                await self._release(key)
            raise
        await self._settle(key, StoredAnswer(answer.status, answer.body.decode(), dict(answer.headers)))
        return answer

    async def _settle(self, key: str, answer: StoredAnswer) -> None:
        try:
            await self._store.settle(key, answer)
        except GoatherdError as error:
            # What was done is done: a repetition will take the claim over and find it by its ids.
            log.warning("idempotent answer not stored", error=error.message)

    async def _release(self, key: str) -> None:
        try:
            await self._store.release(key)
        except GoatherdError as error:
            log.warning("idempotency key not released", error=error.message)


def _replay(answer: StoredAnswer) -> Answer:
    if answer.status >= 400:
        raise StoredProblem(orjson.loads(answer.body), answer.headers)
    return Answer(answer.status, answer.body.encode(), answer.headers, replayed=True)


async def on_stored_problem(request: Request, error: Exception) -> Response:
    """Exception handler for `StoredProblem`."""
    assert isinstance(error, StoredProblem)
    return problem_response(request.scope, error.fields, {**error.headers, REPLAYED: "true"})


def _is_definitive(error: GoatherdError) -> bool:
    """Whether the same request would be answered the same again."""
    if isinstance(error, Conflict):
        return error.code in _LASTING
    return isinstance(error, Invalid | NotFound)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _body_hash(body: bytes) -> str:
    """Of what the JSON says, not of how it is written."""
    canonical = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()
