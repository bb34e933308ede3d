"""A `ChatModel` without a model: for tests, and to try the house out in no time."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from activities.ports import ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Token, Usage
from goatherd.errors import Invalid, Unavailable

_DIRECTIVE = re.compile(r"\[\[([^\[\]]*)\]\]")


class ScriptedChatModel:
    """Replies by a script in the last user turn; the whole reply is a function of the turns and generation.

    Without a script it echoes: `You said: hello`. The script is of `key=value` in double brackets, anywhere
    in the text; it is not echoed:

    - `[[words=50]]`: the reply is `word1 word2 … word50` instead.
    - `[[delay_ms=20]]`: so long before each word.
    - `[[fail=unavailable]]`, `[[fail=invalid]]`: that error instead of a reply.
    - `[[finish=length]]`: the reason that the reply ended is `length`, whatever it was.

    A prompt is scripted in the same way.

    Several may stand in one: `[[words=50 delay_ms=20]]`. A word with the space before it is a chunk and a
    token. `max_tokens` and the usage are of the whole reply, `prefix` included; `stop` ends it as with a real
    model. A `prefix` that is not how this reply begins is followed by all of it. Temperature, `top_p` and
    seed change nothing, and there is no window.
    """

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk | Finish]:
        """See `ChatModel.stream`.

        Raises:
            Invalid: there are no turns, or the script says so or can't be read.
            Unavailable: the script says so.
        """
        if request.prompt is not None:
            said = request.prompt
        elif request.turns:
            said = next((turn.content for turn in reversed(request.turns) if turn.role == "user"), "")
        else:
            raise Invalid("there is nothing to reply to: no turns")
        script = _Script.read(said)
        if script.fail == "unavailable":
            raise Unavailable("the script says unavailable")
        if script.fail == "invalid":
            raise Invalid("the script says invalid")
        words, reason = _cut(script.words, request)
        begun = len(request.prefix) if "".join(words).startswith(request.prefix) else 0
        at = 0
        for word in words:
            at += len(word)
            if at > begun:
                await asyncio.sleep(script.delay_s)
                tokens = [_token(word)] if request.details else None
                yield Chunk(text=word[-(at - begun) :], tokens=tokens)
        read = len(said.split()) if request.prompt is not None else _count(request.turns)
        usage = Usage(prompt_tokens=read, completion_tokens=len(words))
        ended = script.finish or reason
        stopped = ended == "stop" and "".join(words) != "".join(script.words)
        yield Finish(reason=ended, usage=usage, at_stop_text=stopped)


@dataclass(frozen=True, slots=True)
class _Script:
    words: list[str]
    delay_s: float = 0.0
    fail: str = ""
    finish: Literal["length"] | None = None

    @classmethod
    def read(cls, said: str) -> _Script:
        directives = [pair for inside in _DIRECTIVE.findall(said) for pair in inside.split()]
        values = dict(pair.partition("=")[::2] for pair in directives)
        fail = values.get("fail", "")
        unknown = values.keys() - {"words", "delay_ms", "fail", "finish"}
        try:
            if (
                unknown
                or values.get("finish", "length") != "length"
                or fail not in ("", "unavailable", "invalid")
            ):
                raise ValueError
            if "words" in values:
                text = " ".join(f"word{n}" for n in range(1, int(values["words"]) + 1))
            else:
                text = f"You said: {_DIRECTIVE.sub('', said).strip()}".rstrip()
            return cls(
                words=_words(text),
                delay_s=float(values.get("delay_ms", "0")) / 1000,
                fail=fail,
                finish="length" if "finish" in values else None,
            )
        except ValueError as error:
            raise Invalid(f"not a script: {' '.join(directives)!r}") from error


def _token(word: str) -> Token:
    return Token(id=zlib.crc32(word.encode()) % 50_000, text=word, logprob=-0.5)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+\Z", text)


def _cut(words: list[str], request: ChatRequest) -> tuple[list[str], Literal["stop", "length"]]:
    """What stop strings and `max_tokens` leave of a reply, and which of them ended it."""
    wish = request.generation
    kept = words[: wish.max_tokens]
    text = "".join(kept)
    ends = [at for stop in wish.stop or [] if stop and (at := text.find(stop)) >= 0]
    if ends:
        return _words(text[: min(ends)]), "stop"
    return kept, "length" if len(kept) < len(words) else "stop"


def _count(turns: Sequence[ChatTurn]) -> int:
    return sum(len(turn.content.split()) for turn in turns)
