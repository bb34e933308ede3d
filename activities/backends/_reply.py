"""A reply while it is made: what it has, what of it may be shown, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from activities.backends._text import Detokenizer, StopFilter
from goatherd.contracts.inference import Chunk, Finish, Token, Usage

if TYPE_CHECKING:
    from transformers import DynamicCache

    from activities.backends._sampling import Sampling
    from activities.backends._steps import Row

Shown = Chunk | Finish | Exception | None
"""What a reply shows: its chunks and its finish, or why there is none; then None, and nothing more."""


class Reply:
    """From its prompt to its end.

    `ids` are the prompt, then `begun` tokens that the reply has already, then those that are chosen. The
    first `prefilled` of them are read in steps of many, the others one by one, as they would be made. The
    reply has `most` tokens at most.
    """

    def __init__(
        self,
        ids: list[int],
        *,
        begun: int,
        most: int,
        prefilled: int,
        sampling: Sampling,
        text: Detokenizer,
        stops: StopFilter,
        details: bool,
        show: Callable[[Shown], None],
    ) -> None:
        self.ids = ids
        self.most = most
        self.prefilled = prefilled
        self.sampling = sampling
        self.details = details
        self.cancelled = threading.Event()
        """Nobody listens any more."""
        self.cache: DynamicCache | None = None
        """While the prompt is read."""
        self.row: Row | None = None
        """From then on."""
        self.read = 0
        self.ended = False
        self._show = show
        self._text = text
        self._stops = stops
        self._prompt = len(ids) - begun
        self._tokens: list[Token] = []

    @property
    def made(self) -> int:
        """Tokens of the reply, those that it began with included."""
        return len(self.ids) - self._prompt

    @property
    def reserved(self) -> int:
        """Tokens that it may come to keep."""
        return self._prompt + self.most

    @property
    def full(self) -> bool:
        return self.made >= self.most

    def take(self, token: int, name: str, *, ends: bool, logprob: float) -> bool:
        """Takes a token that was chosen, and shows what that makes sure. True if it was the last.

        Args:
            name: the token as text, if it is a special one.
            ends: whether it is one that ends replies.
            logprob: if details are wished.
        """
        self.ids.append(token)
        piece = "" if ends else self._text.push(token)
        if self.details:
            shown = name if name and not piece else piece
            self._tokens.append(Token(id=token, text=shown, logprob=logprob, special=bool(name)))
        if ends:
            self._end("stop")
            return True
        text, met = self._stops.push(piece)
        # Tokens of text that is held back wait for it.
        self._put(text, wait=not met)
        if met:
            self.finish("stop", at_stop_text=True)
        elif self.full:
            self._end("length")
        return met or self.full

    def finish(self, reason: Literal["stop", "length"], *, at_stop_text: bool = False) -> None:
        usage = Usage(prompt_tokens=self._prompt, completion_tokens=self.made)
        self._show(Finish(reason=reason, usage=usage, at_stop_text=at_stop_text))
        self.leave()

    def fail(self, error: Exception) -> None:
        self._show(error)
        self.leave()

    def leave(self) -> None:
        """Frees what it holds, and shows that nothing follows."""
        self.cache = self.row = None
        self.ended = True
        self._show(None)

    def _end(self, reason: Literal["stop", "length"]) -> None:
        self._put(self._stops.flush(), wait=False)
        self.finish(reason)

    def _put(self, text: str, *, wait: bool) -> None:
        if text or (self._tokens and not wait):
            self._show(Chunk(text=text, tokens=self._tokens if self.details else None))
            self._tokens = []
