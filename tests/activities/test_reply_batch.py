"""Who is made when, of replies that share a model: without a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from activities.backends._batch import ReplyBatch
from activities.backends._reply import Reply, Shown
from activities.backends._text import Detokenizer, StopFilter
from goatherd.contracts.inference import Chunk, Finish
from goatherd.errors import Unavailable

SOON_S = 10.0


class Told:
    """A reply of `words` words after a prompt of `prompt` tokens, and what it showed."""

    def __init__(self, *, prompt: int = 1, words: int = 3) -> None:
        self.shown: Queue[Shown] = Queue()
        self.reply = Reply(
            [0] * prompt,
            begun=0,
            most=words,
            prefilled=prompt,
            sampling=None,  # type: ignore[arg-type]  # whose tokens are not drawn
            text=Detokenizer(lambda ids: " word" * len(ids), []),
            stops=StopFilter([]),
            details=False,
            show=self.shown.put,
        )

    def all(self) -> list[Shown]:
        """What it shows until its end."""
        return list(iter(lambda: self.shown.get(timeout=SOON_S), None))

    def begin(self) -> None:
        """Waits until it shows something."""
        assert isinstance(self.shown.get(timeout=SOON_S), Chunk)


class SlowWriter:
    """Reads a token and writes a word at a time, one piece of work for each permit."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.together: list[int] = []
        """How many replies each step wrote."""
        self.unreadable: Reply | None = None
        self.broken = False

    def free(self) -> None:
        self.permits.release(100_000)

    def read_on(self, reply: Reply) -> bool:
        assert self.permits.acquire(timeout=SOON_S)
        if reply is self.unreadable:
            raise MemoryError
        reply.read += 1
        return reply.read == reply.prefilled

    def write_on(self, replies: list[Reply]) -> list[Reply]:
        assert self.permits.acquire(timeout=SOON_S)
        if self.broken:
            raise ValueError("broken")
        self.together.append(len(replies))
        return [reply for reply in replies if reply.take(1, "", ends=False, logprob=0)]


@pytest.fixture
def writer() -> Iterator[SlowWriter]:
    writer = SlowWriter()
    yield writer
    writer.free()


def batch_of(writer: SlowWriter, *told: Told, most: int = 8, most_tokens: int = 100_000) -> ReplyBatch:
    batch = ReplyBatch(writer, most=most, most_tokens=most_tokens)
    for one in told:
        batch.add(one.reply)
    return batch


def is_whole(told: Told, words: int = 3) -> bool:
    *chunks, finish = told.all()
    return (
        isinstance(finish, Finish)
        and finish.usage.completion_tokens == words
        and "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)) == " word" * words
    )


def test_replies_are_written_in_the_same_steps(writer: SlowWriter) -> None:
    told = [Told(words=2_000) for _ in range(4)]
    batch_of(writer, *told)
    writer.free()
    assert all(is_whole(one, 2_000) for one in told)
    assert max(writer.together) == 4


def test_who_comes_later_joins(writer: SlowWriter) -> None:
    long, short = Told(words=10_000), Told()
    batch = batch_of(writer, long)
    writer.permits.release(3)
    long.begin()
    batch.add(short.reply)
    writer.permits.release(20)
    assert is_whole(short)
    assert not long.reply.ended
    writer.free()
    long.reply.cancelled.set()


def test_no_more_are_made_at_once_than_may_be(writer: SlowWriter) -> None:
    told = [Told(words=1_000) for _ in range(5)]
    batch_of(writer, *told, most=2)
    writer.free()
    assert all(is_whole(one, 1_000) for one in told)
    assert max(writer.together) == 2


def test_tokens_of_all_are_bounded_and_a_larger_one_goes_alone(writer: SlowWriter) -> None:
    told = [Told(words=20), Told(words=200), Told(words=20)]
    batch_of(writer, *told, most_tokens=50)
    writer.free()
    assert [is_whole(one, words) for one, words in zip(told, (20, 200, 20), strict=True)] == [True] * 3
    # Nor did the one that came after the large one overtake it.
    assert writer.together == [1] * 240


def test_short_prompt_does_not_wait_for_a_long_one(writer: SlowWriter) -> None:
    long, short = Told(prompt=10_000), Told()
    batch_of(writer, long, short)
    writer.permits.release(20)
    assert is_whole(short)
    assert long.reply.read < 20
    long.reply.cancelled.set()


def test_cancelled_reply_leaves_and_says_so(writer: SlowWriter) -> None:
    told = [Told(words=10_000), Told(words=30)]
    batch_of(writer, *told)
    writer.permits.release(5)
    told[0].begin()
    told[0].reply.cancelled.set()
    writer.free()
    assert not any(isinstance(one, Finish) for one in told[0].all())
    assert told[0].reply.ended
    assert is_whole(told[1], 30)


def test_waiting_reply_is_withdrawn_at_once(writer: SlowWriter) -> None:
    first, second = Told(words=10_000), Told()
    batch = batch_of(writer, first, second, most=1)
    writer.permits.release(3)
    first.begin()
    assert batch.withdraw(second.reply)
    assert not batch.withdraw(first.reply)
    assert batch.waiting == 0
    first.reply.cancelled.set()


def test_prompt_that_can_not_be_read_fails_alone(writer: SlowWriter) -> None:
    told = [Told(), Told()]
    writer.unreadable = told[0].reply
    batch_of(writer, *told)
    writer.free()
    assert [type(one) for one in told[0].all()] == [MemoryError]
    assert is_whole(told[1])


def test_step_that_breaks_fails_those_in_it_and_no_later_ones(writer: SlowWriter) -> None:
    told = [Told(), Told()]
    batch = batch_of(writer, *told)
    writer.broken = True
    writer.free()
    assert all([type(shown) for shown in one.all()] == [ValueError] for one in told)
    writer.broken = False
    later = Told()
    batch.add(later.reply)
    assert is_whole(later)


def test_closed_batch_finishes_what_is_made_and_refuses_the_rest(writer: SlowWriter) -> None:
    made, waiting = Told(), Told()
    batch = batch_of(writer, made, waiting, most=1)
    writer.permits.release(2)
    made.begin()
    batch.close()
    with pytest.raises(Unavailable):
        batch.add(Told().reply)
    writer.free()
    assert isinstance(waiting.all()[0], Unavailable)
    assert isinstance(made.all()[-1], Finish)
