"""Chats as OpenAI's API has them on the wire: the body of a request, and what its stream's events amount to.

Plain data in and out: who sends it, and how, is another's. Source: OpenAI's API reference, "Chat
completions"; `continue_final_message`, `stop_reason`: vLLM's OpenAI-compatible server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from activities.backends._text import StopFilter
from activities.ports import ChatRequest
from goatherd.contracts.deltas import merge
from goatherd.contracts.inference import Chunk, Finish, Token, Usage
from goatherd.contracts.model import Json
from goatherd.errors import Invalid

Resume = Literal["ask", "continue_final_message"]

_OURS = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens")
_GO_ON = (
    "Your last message was cut off. Go on from exactly where it ends: write only what follows, "
    "and repeat nothing of it."
)
# What a token has of characters, about: of the text that there is already nobody says how many it has.
_CHARS_A_TOKEN = 4
NO_ID = -1
"""The id of a token where the other side says none."""


def check(request: ChatRequest) -> None:
    """Raises `Invalid` for what can't be asked of an API."""
    if not request.turns and not request.passed_on.get("messages") and request.prompt is None:
        raise Invalid("there is nothing to reply to: no turns")
    if request.passed_on.get("n", 1) != 1:
        raise Invalid("one reply at a time", pointer="/n")
    for name in _OURS:
        if name in request.passed_on:
            raise Invalid(f"{name!r} can't be passed on", pointer=f"/parameters/passed_on/{name}")


def messages_of(request: ChatRequest, *, resume: Resume, skip: int = 0) -> list[Json]:
    """The conversation without its oldest `skip` turns that may go, then what there is of the reply.

    Messages that are passed on stand for the turns: they may hold what turns can't, such as results of tools.
    """
    given: Sequence[Json] | None = request.passed_on.get("messages")
    if given is not None:
        messages = list(given)
    elif request.prompt is not None:
        messages = [{"role": "user", "content": request.prompt}]
    else:
        messages = [{"role": turn.role, "content": turn.content} for turn in request.turns]
    messages = _without(messages, skip)
    if request.prefix:
        messages.append({"role": "assistant", "content": request.prefix})
        if resume == "ask":
            messages.append({"role": "user", "content": _GO_ON})
    return messages


def may_go(messages: Sequence[Json]) -> list[int]:
    """The places of those that are left out when all don't fit: neither system messages nor the last."""
    return [n for n, one in enumerate(messages[:-1]) if one.get("role") not in ("system", "developer")]


def _without(messages: list[Json], skip: int) -> list[Json]:
    gone = may_go(messages)[:skip]
    return [one for n, one in enumerate(messages) if n not in gone]


def chat_body(
    request: ChatRequest,
    *,
    resume: Resume = "ask",
    max_tokens_as: str = "max_tokens",
    usage: bool = True,
    skip: int = 0,
) -> Json:
    """The whole body but for `model`."""
    body: Json = {"messages": messages_of(request, resume=resume, skip=skip), "stream": True}
    if usage:
        body["stream_options"] = {"include_usage": True}
    if request.prefix and resume == "continue_final_message":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.details:
        body["logprobs"] = True
    more = {name: value for name, value in request.passed_on.items() if name != "messages"}
    return body | _wishes(request, max_tokens_as) | more


def completion_body(request: ChatRequest, *, usage: bool = True) -> Json:
    """That of the older completions, for a request with a prompt."""
    body: Json = {"prompt": f"{request.prompt}{request.prefix}", "stream": True}
    if usage:
        body["stream_options"] = {"include_usage": True}
    if request.details:
        body["logprobs"] = 0
    return body | _wishes(request, "max_tokens") | dict(request.passed_on)


def left_of(request: ChatRequest) -> int | None:
    """How many tokens may still be made; None: as the model likes. What the prefix took is guessed."""
    most = request.generation.max_tokens
    return None if most is None else max(0, most - prefix_tokens(request))


def prefix_tokens(request: ChatRequest) -> int:
    return -(-len(request.prefix) // _CHARS_A_TOKEN)


def _wishes(request: ChatRequest, max_tokens_as: str) -> Json:
    wish = request.generation
    given = {
        max_tokens_as: left_of(request),
        "temperature": wish.temperature,
        "top_p": wish.top_p,
        "stop": [stop for stop in wish.stop or [] if stop] or None,
        "seed": wish.seed,
        "top_k": wish.top_k,
        "repetition_penalty": wish.repetition_penalty,
    }
    return {name: value for name, value in given.items() if value is not None}


class Reading:
    """Makes chunks of a stream's events, and of all of them the finish. For one reply."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._repeated = request.prefix
        """Of the prefix, what the model may still say again before it goes on."""
        self._held = ""
        self._stops = StopFilter(request.generation.stop or [])
        self._stopped = False
        self._reason: str | None = None
        self._at_stop_text = False
        self._usage: Json | None = None
        self._besides: Json = {}
        self._count = 0

    @property
    def complete(self) -> bool:
        """Whether the other side said how the reply ended."""
        return self._reason is not None

    def event(self, event: Json) -> Iterator[Chunk]:
        """What one event of a stream holds, of chat completions or of the older ones."""
        if event.get("usage"):
            self._usage = event["usage"]
        for choice in (event.get("choices") or [])[:1]:
            yield from self._choice(choice)

    def _choice(self, choice: Json) -> Iterator[Chunk]:
        delta = dict(choice.get("delta") or choice.get("message") or {})
        text = delta.pop("content", None) or choice.get("text") or ""
        delta.pop("role", None)
        besides = {name: value for name, value in delta.items() if value not in (None, [], "")}
        tokens = _tokens(choice.get("logprobs")) if self._request.details else None
        likely = choice.get("logprobs")
        if likely and likely.get("content") and self._request.passed_on.get("top_logprobs"):
            besides["logprobs"] = likely
        merge(self._besides, besides)
        if choice.get("finish_reason"):
            self._reason = choice["finish_reason"]
            self._at_stop_text = isinstance(choice.get("stop_reason"), str)
        self._count += bool(text)
        shown = self._shown(text) if text else ""
        if shown or besides or tokens:
            yield Chunk(text=shown, tokens=tokens, passed_on=besides or None)

    def _shown(self, text: str) -> str:
        text = self._news(text)
        if not text or self._stopped:
            return ""
        shown, self._stopped = self._stops.push(text)
        return shown

    def _news(self, text: str) -> str:
        """The text less what repeats the prefix. It is held until it is clear whether it does."""
        if not self._repeated:
            return text
        self._held += text
        if self._repeated.startswith(self._held) and len(self._held) < len(self._repeated):
            return ""
        held, self._held = self._held, ""
        news = held[len(self._repeated) :] if held.startswith(self._repeated) else held
        self._repeated = ""
        return news

    def end(self) -> Iterator[Chunk | Finish]:
        """What was held back, then the finish."""
        # What was held is the beginning of the prefix again: nothing new. A reply may end so.
        if not self._stopped and (rest := self._stops.flush()):
            yield Chunk(text=rest)
        besides = dict(self._besides)
        if self._reason not in ("stop", "length"):
            besides["finish_reason"] = self._reason
        counts = self._usage or {}
        made = counts.get("completion_tokens")
        yield Finish(
            reason="length" if self._reason == "length" and not self._stopped else "stop",
            usage=Usage(
                prompt_tokens=counts.get("prompt_tokens") or 0,
                completion_tokens=(self._count if made is None else made) + prefix_tokens(self._request),
            ),
            at_stop_text=self._at_stop_text or self._stopped,
            passed_on=besides or None,
        )


def _tokens(logprobs: Any) -> list[Token] | None:
    """A chat's `content`, or the older completions' lists side by side."""
    if not logprobs:
        return None
    if logprobs.get("tokens"):
        pairs = zip(logprobs["tokens"], logprobs.get("token_logprobs") or [], strict=False)
        return [Token(id=NO_ID, text=text, logprob=likely or 0.0) for text, likely in pairs]
    content = logprobs.get("content")
    return (
        [Token(id=NO_ID, text=one["token"], logprob=one["logprob"]) for one in content] if content else None
    )
