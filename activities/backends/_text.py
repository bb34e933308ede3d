"""From tokens to text that may be shown: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Tokens of the prompt that the first new text is decoded with. It takes one or two to know whether a word
# begins with a space.
_CONTEXT = 6


class Detokenizer:
    """Text of tokens that come one at a time.

    A token may carry a part of a character (an emoji, a Chinese character): its text waits for the rest.
    `context` are the tokens before the first one, of which no text is returned.

    The way of it is that of text-generation-inference: decode a short window twice, with and without the new
    tokens, as a token's text depends on those before it. Unlike `tokenizers.decoders.DecodeStream` it never
    raises, and it works with any tokenizer.
    """

    def __init__(self, decode: Callable[[list[int]], str], context: Sequence[int]) -> None:
        self._decode = decode
        self._window = list(context[-_CONTEXT:])
        self._read = len(self._window)

    def push(self, token: int) -> str:
        """The text that `token` makes complete, often all its own, or nothing yet."""
        self._window.append(token)
        before = self._decode(self._window[: self._read])
        text = self._decode(self._window)
        if len(text) <= len(before) or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._window = self._window[self._read :]
        self._read = len(self._window)
        return text[len(before) :]


class StopFilter:
    """Passes text on up to the first of some stop strings, also if it comes in pieces.

    What may be the beginning of a stop string is held back, together with the rest of its piece: cuts are
    only ever between pieces, so that a reply that is resumed from its text is made of the same tokens again.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held: list[str] = []

    def push(self, piece: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string was met (then nothing may follow)."""
        self._held.append(piece)
        text = "".join(self._held)
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], True
        safe = len(text) - self._suspect(text)
        passed = ""
        while self._held and len(passed) + len(self._held[0]) <= safe:
            passed += self._held.pop(0)
        return passed, False

    def flush(self) -> str:
        """What was held back, as no more text comes."""
        text = "".join(self._held)
        self._held.clear()
        return text

    def _suspect(self, text: str) -> int:
        """How many of the last characters are the beginning of a stop string."""
        return max(
            (n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
        )
