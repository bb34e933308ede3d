"""A call of a model: where it goes, what comes back, what becomes of it when somebody dies or gives up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from activities.blobs import Blobs
from goatherd.contracts.inference_tasks import Media
from goatherd.contracts.inference_work import InferAnswer, InferOrder, Outcome, Piece, WorkItem
from goatherd.errors import DeadlineExceeded, Invalid, TooManyRequests, Unavailable, WrongTask
from goatherd.temporal import failure
from tests.inference.stack import Desk, Office
from tests.temporal import temporal_server


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


@pytest.fixture
async def office(temporal: WorkflowEnvironment) -> AsyncIterator[Office]:
    made = Office(temporal.client)
    async with made.inference.running():
        yield made


async def never(desk: Desk, order: InferOrder) -> InferAnswer:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_a_call_goes_to_the_worker_that_has_the_model(office: Office) -> None:
    async with office.desk("a").running() as having, office.desk("b").running() as roomy:
        await office.report(having, memory=100, used=90, shout="ready")
        await office.report(roomy, memory=1_000)
        outcomes = await office.run("shout", "hello")
        assert [one.output for one in outcomes] == ["HELLO"]
        assert (len(having.orders), len(roomy.orders)) == (1, 0)


async def test_a_model_that_nobody_has_goes_where_there_is_most_room(office: Office) -> None:
    async with office.desk("a").running() as full, office.desk("b").running() as roomy:
        await office.report(full, memory=100, used=90)
        await office.report(roomy, memory=100, used=10)
        await office.run("shout", "hello")
        assert (len(full.orders), len(roomy.orders)) == (0, 1)


async def test_a_worker_that_can_not_hold_it_sends_it_to_the_next(office: Office) -> None:
    async def too_small(desk: Desk, order: InferOrder) -> InferAnswer:
        raise failure(Unavailable("it has 7 GB", code="model-too-large"))

    async with office.desk("a").running() as small, office.desk("b").running() as other:
        small.answering = too_small
        await office.report(small, memory=1_000)
        await office.report(other, memory=100)
        assert (await office.run("shout", "hello"))[0].output == "HELLO"
        assert len(small.orders) == 1


async def test_if_no_worker_can_hold_it_the_caller_is_told(office: Office) -> None:
    async def too_small(desk: Desk, order: InferOrder) -> InferAnswer:
        raise failure(Unavailable("it has 7 GB", code="model-too-large"))

    async with office.desk("a").running() as one, office.desk("b").running() as other:
        for desk in (one, other):
            desk.answering = too_small
            await office.report(desk)
        with pytest.raises(Unavailable, match="7 GB"):
            await office.run("shout", "hello")
        assert (len(one.orders), len(other.orders)) == (1, 1)


async def test_without_any_worker_a_call_is_refused_at_once(office: Office) -> None:
    with pytest.raises(Unavailable, match="goatherd worker") as refused:
        await office.run("shout", "hello")
    assert refused.value.code == "no-worker"


async def test_a_worker_that_is_gone_is_found_out_and_another_does_it(office: Office) -> None:
    gone = office.desk("gone")
    async with office.desk("b", shared=True).running() as other:
        await office.report(gone, shout="ready")
        await office.report(other)
        assert (await office.run("shout", "hello"))[0].output == "HELLO"
        assert (await office.run("shout", "again"))[0].output == "AGAIN"
        assert len(other.orders) == 2


async def test_a_worker_that_dies_at_it_is_found_out_and_another_does_it(office: Office) -> None:
    async def silent(desk: Desk, order: InferOrder) -> InferAnswer:
        # As a process that was killed: no answer, no beat any more.
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__name__", "") == "_beat":
                task.cancel()
        return await never(desk, order)

    async with office.desk("b").running() as other, office.desk("a").running() as dying:
        dying.answering = silent
        await office.report(dying, shout="ready")
        await office.report(other)
        assert (await office.run("shout", "hello"))[0].output == "HELLO"
        assert (len(dying.orders), len(other.orders)) == (1, 1)


async def test_a_worker_that_shuts_down_hands_it_over(office: Office) -> None:
    async def leaving(desk: Desk, order: InferOrder) -> InferAnswer:
        raise ApplicationError("The worker shuts down.", type="worker-shutdown")

    async with office.desk("a").running() as one, office.desk("b").running() as other:
        one.answering = leaving
        await office.report(one, shout="ready")
        await office.report(other)
        assert (await office.run("shout", "hello"))[0].output == "HELLO"


async def test_what_the_worker_says_of_the_order_is_what_the_caller_hears(office: Office) -> None:
    async def refusing(desk: Desk, order: InferOrder) -> InferAnswer:
        raise failure(Invalid("no such thing", pointer="/parameters/x"))

    async with office.desk("a").running() as desk:
        desk.answering = refusing
        await office.report(desk)
        with pytest.raises(Invalid, match="no such thing") as said:
            await office.run("shout", "hello")
        assert said.value.pointer == "/parameters/x"


async def test_many_inputs_of_one_call_come_back_in_their_order(office: Office) -> None:
    async with office.desk("a").running() as desk:
        await office.report(desk, shout="ready")
        outcomes = await office.run("shout", *(f"text {n}" for n in range(1_000)))
        assert [one.output for one in outcomes] == [f"TEXT {n}" for n in range(1_000)]
        assert len(desk.orders) < 40
        assert max(len(order.items) for order in desk.orders) <= 64


async def test_calls_at_the_same_time_share_orders(office: Office) -> None:
    async with office.desk("a").running() as desk:
        await office.report(desk, shout="ready")
        answers = await asyncio.gather(*(office.run("shout", f"text {n}") for n in range(64)))
        assert [outcomes[0].output for outcomes in answers] == [f"TEXT {n}" for n in range(64)]
        assert len(desk.orders) < 10


async def test_a_call_that_takes_too_long_ends_in_time_and_frees_the_worker(office: Office) -> None:
    async with office.desk("a").running() as desk:
        desk.answering = never
        await office.report(desk, shout="ready")
        with pytest.raises(DeadlineExceeded):
            await office.run("shout", "hello", timeout_s=0.5)
        async with asyncio.timeout(5):
            await desk.cancelled.wait()


async def test_who_hangs_up_frees_the_worker(office: Office) -> None:
    async with office.desk("a").running() as desk:
        desk.answering = never
        await office.report(desk, shout="ready")
        call = asyncio.create_task(office.run("shout", "hello"))
        await desk.arrived.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await desk.cancelled.wait()


async def test_a_model_is_not_asked_for_another_task(office: Office) -> None:
    entry = office.registry.entry("shout")
    with pytest.raises(WrongTask, match="text-classification"):
        await office.inference.run(entry, office.registry.entry("eye").spec.task, [], caller="ann")


async def test_when_too_many_wait_the_next_is_refused(office: Office) -> None:
    entry = office.registry.entry("shout")
    tight = entry.model_copy(
        update={
            "spec": entry.spec.model_copy(
                update={"limits": entry.spec.limits.model_copy(update={"queue": 2})}
            )
        }
    )

    async with office.desk("a").running() as desk:
        desk.answering = never
        await office.report(desk, shout="ready")
        calls = [
            asyncio.create_task(
                office.inference.run(tight, tight.spec.task, [WorkItem(inputs=f"{n}")], caller="ann")
            )
            for n in range(5)
        ]
        done, waiting = await asyncio.wait(calls, timeout=2)
        assert [type(one.exception()) for one in done] == [TooManyRequests] * len(done) != []
        for call in waiting:
            call.cancel()


# -- files


async def test_a_large_image_goes_by_claim_and_is_dropped_afterwards(office: Office) -> None:
    data = secrets.token_bytes(2_000_000)
    seen: list[bytes] = []

    async def look(desk: Desk, order: InferOrder) -> InferAnswer:
        media = Media.model_validate(order.items[0].inputs)
        assert media.data == b""
        assert media.claim is not None
        seen.append(await office.payloads.get(media.claim) or b"")
        return InferAnswer(outcomes=[Outcome(output=[])])

    async with office.desk("a").running() as desk:
        desk.answering = look
        await office.report(desk, eye="ready")
        await office.run("eye", Media(data=data, mime="image/png").model_dump(mode="json"))
    assert seen == [data]
    async with asyncio.timeout(5):
        while len(office.payloads):  # noqa: ASYNC110 - dropped in the background
            await asyncio.sleep(0.01)


async def test_a_claim_of_a_callers_own_making_does_not_count(office: Office) -> None:
    async def look(desk: Desk, order: InferOrder) -> InferAnswer:
        return InferAnswer(outcomes=[Outcome(output=order.items[0].inputs)])

    async with office.desk("a").running() as desk:
        desk.answering = look
        await office.report(desk, eye="ready")
        outcomes = await office.run("eye", {"data": "AAAA", "claim": "somebody-elses"})
        assert outcomes[0].output == {"data": "AAAA"}


async def test_a_file_that_is_made_comes_with_its_bytes(office: Office) -> None:
    data = secrets.token_bytes(500_000)

    async def speak(desk: Desk, order: InferOrder) -> InferAnswer:
        blobs = Blobs(office.payloads, office.client.namespace)
        output = await blobs.stow_output(order.task, Media(data=data, mime="audio/wav"), order.owner)
        assert output["claim"]
        return InferAnswer(outcomes=[Outcome(output=output)])

    async with office.desk("a").running() as desk:
        desk.answering = speak
        await office.report(desk, voice="ready")
        outcomes = await office.run("voice", "hello")
        assert Media.model_validate(outcomes[0].output) == Media(data=data, mime="audio/wav")


# -- text while it is made


def words(text: str) -> Outcome:
    return Outcome(output={"generated_text": text})


async def test_pieces_come_while_the_text_is_made_and_then_its_outcome(office: Office) -> None:
    go_on = asyncio.Event()

    async def talk(desk: Desk, order: InferOrder) -> InferAnswer:
        assert order.stream
        await office.pieces.publish([Piece(stream=order.stream, n=0, offset=0, text="one ")])
        await go_on.wait()
        await office.pieces.publish([Piece(stream=order.stream, n=1, offset=4, text="two ")])
        return InferAnswer(outcomes=[words("one two three")])

    async with office.desk("a").running() as desk:
        desk.answering = talk
        await office.report(desk, talk="ready")
        seen: list[Piece | Outcome] = []
        async for one in office.texts("talk", "count"):
            seen.append(one)
            go_on.set()
        texts = [one.text for one in seen if isinstance(one, Piece)]
        assert texts[0] == "one "
        assert "".join(texts) == "one two three"
        assert seen[-1] == words("one two three")


async def test_a_piece_that_was_missed_is_made_good_by_the_answer(office: Office) -> None:
    async def talk(desk: Desk, order: InferOrder) -> InferAnswer:
        assert order.stream
        await office.pieces.publish(
            [
                Piece(stream=order.stream, n=0, offset=0, text="one "),
                Piece(stream=order.stream, n=2, offset=8, text="three"),
            ]
        )
        return InferAnswer(outcomes=[words("one two three")])

    async with office.desk("a").running() as desk:
        desk.answering = talk
        await office.report(desk, talk="ready")
        texts = [one.text async for one in office.texts("talk", "count") if isinstance(one, Piece)]
        assert "".join(texts) == "one two three"


async def test_after_a_piece_without_text_was_missed_nothing_is_shown_before_the_end(office: Office) -> None:
    async def talk(desk: Desk, order: InferOrder) -> InferAnswer:
        assert order.stream
        await office.pieces.publish(
            [
                Piece(stream=order.stream, n=0, offset=0, text="one "),
                Piece(stream=order.stream, n=2, offset=4, text="", passed_on={"reasoning": "two"}),
            ]
        )
        return InferAnswer(outcomes=[words("one ")])

    async with office.desk("a").running() as desk:
        desk.answering = talk
        await office.report(desk, talk="ready")
        seen = [one async for one in office.texts("talk", "count") if isinstance(one, Piece)]
        assert [one.n for one in seen] == [0]


async def test_who_stops_reading_frees_the_worker(office: Office) -> None:
    async def talk(desk: Desk, order: InferOrder) -> InferAnswer:
        assert order.stream
        await office.pieces.publish([Piece(stream=order.stream, n=0, offset=0, text="one ")])
        return await never(desk, order)

    async with office.desk("a").running() as desk:
        desk.answering = talk
        await office.report(desk, talk="ready")
        async with aclosing(office.texts("talk", "count")) as texts:
            await anext(texts)
        async with asyncio.timeout(5):
            await desk.cancelled.wait()


async def test_a_text_that_was_begun_is_not_begun_again_elsewhere(office: Office) -> None:
    async def talk(desk: Desk, order: InferOrder) -> InferAnswer:
        raise ApplicationError("The worker shuts down.", type="worker-shutdown")

    async with office.desk("a").running() as one, office.desk("b").running() as other:
        one.answering = other.answering = talk
        await office.report(one, talk="ready")
        await office.report(other)
        with pytest.raises(Unavailable, match="lost"):
            async for _ in office.texts("talk", "count"):
                pass
        assert len(other.orders) == 0
