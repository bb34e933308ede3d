"""What every `Journal` does. The fixture `journal` says which ones are asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from goatherd.actors.persistence import Entry, EventsRejected, Journal, Snapshot
from goatherd.errors import Fenced, GoatherdError


def event(number: int) -> dict[str, Any]:
    return {"type": "bank:Paid", "value": {"number": number, "a.b": "$c", "none": None, "list": [1.5, "x"]}}


async def numbers(journal: Journal, persistence_id: str, **options: int) -> list[int]:
    return [entry.seq async for entry in journal.read(persistence_id, **options)]


async def fill(journal: Journal, persistence_id: str, *batches: int) -> None:
    """Batches of these sizes."""
    seq = 1
    for size in batches:
        events = [event(seq + place) for place in range(size)]
        await journal.append(persistence_id, seq, events, writer="first")
        seq += size


class JournalContract:
    async def test_empty_journal_has_nothing(self, journal: Journal) -> None:
        assert await numbers(journal, "a") == []
        assert await journal.highest("a") == 0
        assert await journal.load_snapshot("a") is None
        assert await journal.delete_snapshots("a", keep=1) == 0
        await journal.delete_events("a", 10)

    async def test_events_are_read_as_they_were_appended(self, journal: Journal) -> None:
        await fill(journal, "a", 1, 3, 2)
        await fill(journal, "b", 1)
        entries = [entry async for entry in journal.read("a")]
        assert entries == [Entry(seq, event(seq)) for seq in range(1, 7)]
        assert await journal.highest("a") == 6

    async def test_events_are_read_after_any_number_and_up_to_any_limit(self, journal: Journal) -> None:
        await fill(journal, "a", 1, 3, 2)
        for after in range(8):
            for limit in range(8):
                expected = list(range(after + 1, 7))[:limit]
                assert await numbers(journal, "a", after=after, limit=limit) == expected

    async def test_taken_number_is_fenced(self, journal: Journal) -> None:
        await fill(journal, "a", 1, 3)
        with pytest.raises(Fenced):
            await journal.append("a", 2, [event(2)], writer="second")
        assert await journal.highest("a") == 4

    async def test_repeated_append_of_the_same_writer_does_nothing(self, journal: Journal) -> None:
        await fill(journal, "a", 1, 3)
        await journal.append("a", 2, [event(2), event(3), event(4)], writer="first")
        assert await numbers(journal, "a") == [1, 2, 3, 4]

    async def test_one_of_many_writers_at_once_wins(self, journal: Journal) -> None:
        outcomes = await asyncio.gather(
            *(journal.append("a", 1, [event(1)] * size, writer=f"w{size}") for size in range(1, 9)),
            return_exceptions=True,
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        assert all(outcome is None or isinstance(outcome, Fenced) for outcome in outcomes)
        (winner,) = [size for size, outcome in enumerate(outcomes, 1) if outcome is None]
        assert await journal.highest("a") == winner

    async def test_batch_with_an_event_that_cannot_be_kept_is_rejected_whole(self, journal: Journal) -> None:
        with pytest.raises(EventsRejected):
            await journal.append("a", 1, [event(1), {"value": object()}], writer="first")
        assert await journal.highest("a") == 0
        await fill(journal, "a", 1)

    async def test_deleted_events_are_gone_and_their_numbers_stay_taken(self, journal: Journal) -> None:
        await fill(journal, "a", 1, 3, 2)
        await journal.delete_events("a", 5)
        assert await numbers(journal, "a") == [5, 6]
        await journal.delete_events("a", 6)
        assert await numbers(journal, "a") == []
        assert await journal.highest("a") == 6
        with pytest.raises(Fenced):
            await journal.append("a", 2, [event(2)], writer="stale")

    async def test_latest_snapshot_is_loaded(self, journal: Journal) -> None:
        for seq in (3, 9, 6):
            await journal.save_snapshot("a", seq, event(seq))
        await journal.save_snapshot("b", 12, None)
        assert await journal.load_snapshot("a") == Snapshot(9, event(9))
        await journal.save_snapshot("a", 9, event(10))
        assert await journal.load_snapshot("a") == Snapshot(9, event(10))

    async def test_older_snapshots_are_deleted(self, journal: Journal) -> None:
        for seq in (3, 6, 9):
            await journal.save_snapshot("a", seq, event(seq))
        assert await journal.delete_snapshots("a", keep=4) == 0
        assert await journal.delete_snapshots("a", keep=2) == 6
        assert await journal.delete_snapshots("a", keep=3) == 0
        assert await journal.delete_snapshots("a", keep=1) == 9
        assert await journal.load_snapshot("a") == Snapshot(9, event(9))

    async def test_state_that_cannot_be_kept_is_an_error_of_ours(self, journal: Journal) -> None:
        with pytest.raises(GoatherdError):
            await journal.save_snapshot("a", 1, {"value": object()})
