"""What every `ChatModel` keeps to, the fake and the real one. Subclass it and give the fixture `chat`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation, Token
from goatherd.errors import Invalid

GREEDY = Generation(temperature=0, max_tokens=24)


@dataclass
class Reply:
    chunks: list[str] = field(default_factory=list)
    finish: Finish | None = None
    tokens: list[Token] = field(default_factory=list)
    """If details were asked for."""

    @property
    def text(self) -> str:
        return "".join(self.chunks)


def asking(content: str, generation: Generation = GREEDY, prefix: str = "") -> ChatRequest:
    return ChatRequest([ChatTurn(role="user", content=content)], generation, prefix)


def going_on(prompt: str, generation: Generation = GREEDY, prefix: str = "") -> ChatRequest:
    return ChatRequest((), generation, prefix, prompt=prompt)


async def reply(model: ChatModel, request: ChatRequest) -> Reply:
    got = Reply()
    async for item in model.stream(request):
        assert got.finish is None, "nothing follows the finish"
        if isinstance(item, Chunk):
            if item.text:
                got.chunks.append(item.text)
            assert item.text or item.tokens or item.passed_on
            got.tokens += item.tokens or ()
        else:
            got.finish = item
    return got


def varied(generation: Generation, **changes: object) -> Generation:
    return generation.model_copy(update=changes)


class ChatModelContract:
    questions: Sequence[str] = (
        "Name three colors that one sees in a rainbow, please.",
        "What do goats like to eat in the mountains in summer?",
    )

    @pytest.fixture
    def chat(self) -> ChatModel:
        raise NotImplementedError

    async def test_streams_chunks_of_text_and_then_one_finish(self, chat: ChatModel) -> None:
        got = await reply(chat, asking(self.questions[0]))
        assert len(got.chunks) > 3
        assert got.tokens == []
        assert got.finish is not None
        assert got.finish.usage.prompt_tokens >= 9
        assert 3 < got.finish.usage.completion_tokens <= 24

    async def test_same_question_gets_same_greedy_reply(self, chat: ChatModel) -> None:
        first = await reply(chat, asking(self.questions[0]))
        assert await reply(chat, asking(self.questions[0])) == first

    async def test_goes_on_from_a_prefix_to_the_same_whole(self, chat: ChatModel) -> None:
        whole = await reply(chat, asking(self.questions[0]))
        for cut in (1, len(whole.chunks) // 2, len(whole.chunks) - 1):
            prefix = "".join(whole.chunks[:cut])
            rest = await reply(chat, asking(self.questions[0], prefix=prefix))
            assert prefix + rest.text == whole.text
            assert rest.finish == whole.finish

    async def test_max_tokens_ends_a_reply_for_its_length(self, chat: ChatModel) -> None:
        got = await reply(chat, asking(self.questions[0], varied(GREEDY, max_tokens=4)))
        assert got.finish is not None
        assert got.finish.reason == "length"
        assert got.finish.usage.completion_tokens == 4

    async def test_prefix_that_used_up_max_tokens_gets_no_more(self, chat: ChatModel) -> None:
        short = varied(GREEDY, max_tokens=4)
        whole = await reply(chat, asking(self.questions[0], short))
        rest = await reply(chat, asking(self.questions[0], short, prefix=whole.text))
        assert rest.chunks == []
        assert rest.finish == whole.finish

    @pytest.mark.parametrize("width", [1, 5, 9])
    async def test_stop_string_ends_a_reply_before_it(self, chat: ChatModel, width: int) -> None:
        whole = (await reply(chat, asking(self.questions[0]))).text
        stop = whole[len(whole) // 2 :][:width]
        got = await reply(chat, asking(self.questions[0], varied(GREEDY, stop=["", "no such text", stop])))
        assert got.text == whole[: whole.index(stop)]
        assert got.finish is not None
        assert got.finish.reason == "stop"
        assert got.finish.at_stop_text

    async def test_beginning_of_a_stop_string_is_shown_in_the_end(self, chat: ChatModel) -> None:
        whole = await reply(chat, asking(self.questions[0]))
        stop = whole.text[-3:] + " and never said"
        got = await reply(chat, asking(self.questions[0], varied(GREEDY, stop=[stop])))
        assert got.text == whole.text
        assert got.finish == whole.finish
        assert got.finish is not None
        assert not got.finish.at_stop_text

    async def test_goes_on_from_a_text_to_the_same_whole(self, chat: ChatModel) -> None:
        whole = await reply(chat, going_on(self.questions[1]))
        assert whole.finish is not None
        assert whole.finish.usage.prompt_tokens >= 9
        prefix = "".join(whole.chunks[:2])
        rest = await reply(chat, going_on(self.questions[1], prefix=prefix))
        assert prefix + rest.text == whole.text
        assert rest.finish == whole.finish

    async def test_details_are_the_tokens_of_the_reply(self, chat: ChatModel) -> None:
        for request in (asking(self.questions[0]), going_on(self.questions[0])):
            plain = await reply(chat, request)
            got = await reply(chat, replace(request, details=True))
            assert got.text == plain.text
            assert got.finish == plain.finish
            assert got.finish is not None
            assert len(got.tokens) == got.finish.usage.completion_tokens
            assert "".join(token.text for token in got.tokens if not token.special) == got.text
            assert all(token.logprob <= 0 for token in got.tokens)

    async def test_replies_at_once_do_not_mix(self, chat: ChatModel) -> None:
        alone = [await reply(chat, asking(question)) for question in self.questions]
        together = await asyncio.gather(*(reply(chat, asking(question)) for question in self.questions))
        assert together == alone
        assert alone[0].text != alone[1].text

    async def test_closed_stream_leaves_room_for_others(self, chat: ChatModel) -> None:
        for _ in range(5):
            async with aclosing(chat.stream(asking(self.questions[0]))) as stream:  # type: ignore[type-var]
                assert isinstance(await anext(stream), Chunk)
        assert (await reply(chat, asking(self.questions[0]))).finish is not None

    async def test_no_turns_are_invalid(self, chat: ChatModel) -> None:
        with pytest.raises(Invalid):
            await reply(chat, ChatRequest([], GREEDY))
