"""A worker that is a language model: Goatherd's own, asked through `POST /chat`.

A small model knows what is wanted only from examples. They are the session's first messages, once; each
sentence is then a branch of its own behind them, so that none is seen with another.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from examples.labeling.neighbours import SEED

_WORDS = {"good": "positive", "bad": "negative"}
_REPLY_S = 45
_EXAMPLES = 12
"""More of them take a small model on a CPU longer to read than they are worth."""


class Reader:
    """Answers by what the model's reply begins with; `unsure` if that is neither."""

    def __init__(self, http: httpx.AsyncClient, *, model: str | None = None, seed: Path = SEED) -> None:
        self.name = model or "model"
        self._http = http
        self._model = model
        self._seed = seed
        self._start: tuple[str, str] | None = None
        self._starting = asyncio.Lock()

    async def answer(self, sentence: dict[str, str]) -> str:
        session, parent = await self._started()
        body = {"content": _question(sentence["text"]), "parent_id": parent}
        posted = await self._post(f"/chat/{session}/message", body, prefer=f"wait={_REPLY_S}")
        reply = posted["reply_message"]
        if reply is None or reply["status"] != "completed":
            raise httpx.ReadTimeout("The model has not replied.")
        words = reply["content"].lower().split()
        return _WORDS.get(words[0].strip(".,!?\"'"), "unsure") if words else "unsure"

    async def _started(self) -> tuple[str, str]:
        """The session, and its last example."""
        async with self._starting:
            if self._start is None:
                self._start = await self._tell_examples()
            return self._start

    async def _tell_examples(self) -> tuple[str, str]:
        generation = {"max_tokens": 4, "temperature": 0}
        body = {"title": "Labels", "generation": generation} | ({"model": self._model} if self._model else {})
        session = (await self._post("/chat", body))["id"]
        last = ""
        for line in self._seed.read_text(encoding="utf-8").splitlines()[:_EXAMPLES]:
            example = json.loads(line)
            said = next(word for word, label in _WORDS.items() if label == example["label"])
            for role, content in (("user", _question(example["text"])), ("assistant", said)):
                message = {"role": role, "content": content, "reply": False}
                last = (await self._post(f"/chat/{session}/message", message))["id"]
        return session, last

    async def _post(self, path: str, body: dict[str, Any], prefer: str = "") -> dict[str, Any]:
        answer = await self._http.post(path, json=body, headers={"prefer": prefer} if prefer else {})
        answer.raise_for_status()
        return dict(answer.json())


def _question(text: str) -> str:
    return f"{text}\nGood or bad?"
