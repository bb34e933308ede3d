"""`IdempotencyStore`: the contract, on every backend."""

from __future__ import annotations

import asyncio

from activities.backends.mongo_idempotency import MongoIdempotencyStore
from activities.ports import IdempotencyStore, KeyClaim, StoredAnswer
from goatherd.errors import Invalid
from tests.activities.clock import Clock

ANSWER = StoredAnswer(201, '{"id": "x"}', {"Location": "/chat/x", "a.b": "$c"})


async def test_first_claim_is_fresh_and_the_next_waits(idempotency: IdempotencyStore) -> None:
    claim = await idempotency.claim("k", "body", lease_s=30)
    assert claim.outcome == "fresh"
    assert claim.seed
    assert claim.seed_millis > 0
    assert await idempotency.claim("k", "body", lease_s=30) == KeyClaim("running")
    assert (await idempotency.claim("other", "body", lease_s=30)).outcome == "fresh"


async def test_answer_is_given_again(idempotency: IdempotencyStore) -> None:
    await idempotency.claim("k", "body", lease_s=30)
    await idempotency.settle("k", ANSWER)
    assert await idempotency.claim("k", "body", lease_s=30) == KeyClaim("done", answer=ANSWER)


async def test_first_answer_stays(idempotency: IdempotencyStore) -> None:
    await idempotency.claim("k", "body", lease_s=30)
    await idempotency.settle("k", ANSWER)
    await idempotency.settle("k", StoredAnswer(500, "", {}))
    assert (await idempotency.claim("k", "body", lease_s=30)).answer == ANSWER


async def test_another_body_is_a_mismatch_at_any_time(idempotency: IdempotencyStore, clock: Clock) -> None:
    await idempotency.claim("k", "body", lease_s=30)
    assert await idempotency.claim("k", "other", lease_s=30) == KeyClaim("mismatch")
    clock.pass_seconds(31)
    assert await idempotency.claim("k", "other", lease_s=30) == KeyClaim("mismatch")
    await idempotency.settle("k", ANSWER)
    assert await idempotency.claim("k", "other", lease_s=30) == KeyClaim("mismatch")


async def test_claim_whose_lease_ran_out_is_taken_over_with_its_seed(
    idempotency: IdempotencyStore, clock: Clock
) -> None:
    first = await idempotency.claim("k", "body", lease_s=30)
    clock.pass_seconds(30)
    second = await idempotency.claim("k", "body", lease_s=30)
    assert second == first
    assert await idempotency.claim("k", "body", lease_s=30) == KeyClaim("running")
    clock.pass_seconds(31)
    assert await idempotency.claim("k", "body", lease_s=30) == first


async def test_released_claim_is_free_with_its_seed(idempotency: IdempotencyStore) -> None:
    first = await idempotency.claim("k", "body", lease_s=30)
    await idempotency.release("k")
    assert (await idempotency.claim("k", "other body", lease_s=30)).outcome == "mismatch"
    assert await idempotency.claim("k", "body", lease_s=30) == first


async def test_settled_claim_stays_settled_when_released(idempotency: IdempotencyStore) -> None:
    await idempotency.claim("k", "body", lease_s=30)
    await idempotency.settle("k", ANSWER)
    await idempotency.release("k")
    await idempotency.release("never claimed")
    assert (await idempotency.claim("k", "body", lease_s=30)).outcome == "done"


async def test_one_of_many_at_once_has_it(idempotency: IdempotencyStore, clock: Clock) -> None:
    for _ in range(3):
        claims = await asyncio.gather(*(idempotency.claim("k", "body", lease_s=30) for _ in range(20)))
        assert sorted(claim.outcome for claim in claims) == ["fresh"] + ["running"] * 19
        clock.pass_seconds(30)


async def test_key_that_cannot_be_kept_fails_alone(mongo_idempotency: MongoIdempotencyStore) -> None:
    keys = ["first", "a", "\ud800", "b"]  # while the first is under way the others wait, and go together
    claims = await asyncio.gather(
        *(mongo_idempotency.claim(key, "body", lease_s=30) for key in keys), return_exceptions=True
    )
    assert [getattr(claim, "outcome", type(claim)) for claim in claims] == [
        "fresh",
        "fresh",
        Invalid,
        "fresh",
    ]
