"""Snapshots of engines in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
from pathlib import Path

import pytest

from activities.backends.retrieval.local_engine import LocalEngine
from activities.backends.retrieval.snapshots import Snapshots, forget, kept
from goatherd.contracts.retrieval import IndexSpec, SearchAnswer, SearchQuery
from tests.activities.retrieval.plain_parts import open_plain
from tests.activities.retrieval.saving import DOCUMENTS, PARTS, SPEC, entry_of

OTHER_SPEC = IndexSpec(dimensions=16, metric="l2")


def snapshots_in(root: Path, spec: IndexSpec = SPEC, index: str = "ix", version: int = 1) -> Snapshots:
    return Snapshots(root, index, version, spec)


def save(snapshots: Snapshots, applied: int, **files: str) -> Path:
    """A snapshot of these files. Gives its folder."""
    with snapshots.writing() as writing:
        (writing.folder / "part").mkdir()
        for name, content in files.items():
            (writing.folder / "part" / name).write_text(content)
        return writing.commit(applied).folder


def names(snapshots: Snapshots) -> list[str]:
    """What lies in its folder: whole ones, and what is at work."""
    return sorted(name for name in os.listdir(snapshots.folder) if name != ".lock")


def test_nothing_was_saved_at_first(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path / "not" / "there")
    assert snapshots.latest() is None
    assert not snapshots.any


def test_last_one_counts_and_earlier_ones_are_removed(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    for applied in (5, 9, 7):
        folder = save(snapshots, applied, one="x" * applied)
        latest = snapshots.latest()
        assert latest is not None
        assert (latest.folder, latest.applied) == (folder, applied)
        assert (folder / "part" / "one").read_text() == "x" * applied
        assert names(snapshots) == [folder.name]
    # Whoever saves later wins, even if it has less: all that counts is that it is whole.
    assert snapshots.any


def test_what_is_not_committed_never_was(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    folder = save(snapshots, 5, one="x")
    with snapshots.writing() as writing:
        (writing.folder / "one").write_text("half")
        assert len(names(snapshots)) == 2
    assert names(snapshots) == [folder.name]
    with contextlib.suppress(ValueError), snapshots.writing():
        raise ValueError
    assert names(snapshots) == [folder.name]
    latest = snapshots.latest()
    assert latest is not None
    assert latest.applied == 5


@pytest.mark.parametrize("damage", ["cut", "turned", "gone", "more", "manifest", "applied", "empty"])
def test_torn_one_is_not_opened_and_left_alone(tmp_path: Path, damage: str) -> None:
    snapshots = snapshots_in(tmp_path)
    folder = save(snapshots, 5, one="a" * 100, two="b" * 100)
    file, manifest = folder / "part" / "one", folder / "manifest.json"
    match damage:
        case "cut":
            file.write_text("a" * 99)
        case "turned":
            file.write_text("a" * 99 + "b")
        case "gone":
            file.unlink()
        case "more":
            (folder / "part" / "three").write_text("")
        case "manifest":
            manifest.write_text(manifest.read_text()[:-10])
        case "applied":
            manifest.write_text(manifest.read_text().replace('"applied": 5', '"applied": 6'))
        case "empty":
            manifest.write_text("[]")
    assert snapshots.latest() is None
    assert names(snapshots) == [folder.name]
    # The next one takes its place.
    whole = save(snapshots, 6, one="c")
    latest = snapshots.latest()
    assert latest is not None
    assert latest.folder == whole
    assert names(snapshots) == [whole.name]


def test_torn_newer_one_gives_way_to_an_older_one(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    older = save(snapshots, 5, one="x")
    # As a machine leaves it that lost power before the older one was removed.
    newer = snapshots.folder / f"{999:012d}-{'0' * 16}"
    newer.mkdir()
    latest = snapshots.latest()
    assert latest is not None
    assert latest.folder == older


def test_one_of_another_spec_or_version_is_not_opened(tmp_path: Path) -> None:
    folder = save(snapshots_in(tmp_path), 5, one="x")
    other = snapshots_in(tmp_path, OTHER_SPEC)
    assert other.latest() is None
    assert folder.exists()
    assert snapshots_in(tmp_path, version=2).latest() is None
    copied = snapshots_in(tmp_path, index="other")
    copied.folder.mkdir()
    folder.rename(copied.folder / folder.name)
    assert copied.latest() is None


@pytest.mark.parametrize("name", ["", "a/b", "/a", "../a", "a\0b"])
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="can't be part"):
        Snapshots(tmp_path, name, 1, SPEC)


def test_folders_of_the_living_are_kept_and_of_the_dead_are_swept_away(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    live, writing = snapshots.live(), snapshots.writing()
    dead = snapshots.folder / ".live-dead"
    dead.mkdir()
    (dead / "held").touch()
    born = snapshots.folder / ".writing-born"
    born.mkdir()
    other = snapshots_in(tmp_path).live()
    assert live.folder.exists()
    assert writing.folder.exists()
    assert not dead.exists()
    assert not born.exists()
    live.remove()
    other.remove()
    with writing:
        pass
    assert names(snapshots) == []


def test_many_that_save_at_once_leave_one_that_is_whole(tmp_path: Path) -> None:
    def run(number: int) -> None:
        snapshots = snapshots_in(tmp_path)
        for turn in range(12):
            save(snapshots, number * 100 + turn, one=f"{number} {turn}")
            latest = snapshots.latest()
            assert latest is not None

    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            run(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    snapshots = snapshots_in(tmp_path)
    latest = snapshots.latest()
    assert latest is not None
    assert names(snapshots) == [latest.folder.name]
    number, turn = (latest.folder / "part" / "one").read_text().split()
    assert latest.applied == int(number) * 100 + int(turn)


def test_what_is_of_no_use_any_more_is_forgotten(tmp_path: Path) -> None:
    assert kept(tmp_path / "nowhere") == []
    save(snapshots_in(tmp_path), 5, one="x")
    save(snapshots_in(tmp_path, version=2), 5, one="x")
    save(snapshots_in(tmp_path, index="b@1"), 5, one="x")
    (tmp_path / "other things").mkdir()
    assert kept(tmp_path) == [("b@1", 1), ("ix", 1), ("ix", 2)]
    forget(tmp_path, "ix", 1)
    forget(tmp_path, "ix", 7)
    assert kept(tmp_path) == [("b@1", 1), ("ix", 2)]
    # Who works in it goes on, and what he saves then is there.
    live = snapshots_in(tmp_path, version=2).live()
    forget(tmp_path, "ix", 2)
    assert live.folder.exists()
    assert snapshots_in(tmp_path, version=2).latest() is None
    live.remove()
    forget(tmp_path, "ix", 2)
    assert kept(tmp_path) == [("b@1", 1)]


# -- processes that are killed


async def check_whole(root: Path, index: str, least: int, parts: str = "plain") -> int:
    """What is kept can be opened, has at least this, and exactly what belongs to its number."""
    engine = LocalEngine(SPEC, snapshots_in(root, index=index), PARTS[parts])
    try:
        applied = engine.applied
        assert applied >= least
        documents = min(applied, DOCUMENTS)
        (answer,) = await engine.search([SearchQuery(vector=entry_of(1).vectors[:64], k=1_000)])
        assert isinstance(answer, SearchAnswer)
        found = sorted((hit.seq, hit.chunk) for hit in answer.hits)
        expected = range(applied - documents + 1, applied + 1)
        assert found == [(seq, chunk) for seq in expected for chunk in range(3)]
        (answer,) = await engine.search(
            [SearchQuery(mode="lexical", text="zebra", k=1_000, filter={"seq": {"gt": applied - 5}})]
        )
        assert isinstance(answer, SearchAnswer)
        assert len(answer.hits) == min(applied, 5)
    finally:
        await engine.close()
    return applied


async def check_tidied(root: Path, parts: str) -> None:
    """Whoever saves next removes what all the others left."""
    snapshots = snapshots_in(root)
    engine = LocalEngine(SPEC, snapshots, PARTS[parts])
    await engine.apply([], engine.applied + 1)
    await engine.save()
    await engine.close()
    assert len(names(snapshots)) == 1


async def start(root: Path, index: str, parts: str = "plain") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.activities.retrieval.saving",
        str(root),
        index,
        parts,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


async def said(process: asyncio.subprocess.Process) -> tuple[str, int]:
    assert process.stdout is not None
    word, number = (await process.stdout.readline()).split()
    return word.decode(), int(number)


async def kill(process: asyncio.subprocess.Process) -> int:
    """Gives the last number that it said it had saved."""
    os.kill(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    lines = (await process.stdout.read()).decode().splitlines(keepends=True)
    await process.wait()
    return max((int(line.split()[1]) for line in lines if line.endswith("\n")), default=0)


@pytest.mark.parametrize(("parts", "kills", "save_s"), [("plain", 6, 0.03), ("libraries", 4, 0.1)])
async def test_killed_while_it_saves_leaves_the_last_one_whole(
    tmp_path: Path, parts: str, kills: int, save_s: float
) -> None:
    chance = random.Random(4)
    least = 0
    for _ in range(kills):
        process = await start(tmp_path, "ix", parts)
        try:
            word, began = await said(process)
            assert (word, began) == ("began", least) if least == 0 else began >= least
            for _ in range(chance.randrange(1, 4)):
                least = (await said(process))[1]
            # Anywhere in the next few saves: how long these take is not known here, nor need it be.
            await asyncio.sleep(chance.random() * save_s)
        finally:
            least = max(least, await kill(process))
        least = await check_whole(tmp_path, "ix", least, parts)
    await check_tidied(tmp_path, parts)


async def test_processes_that_share_a_folder_may_be_killed_one_by_one(tmp_path: Path) -> None:
    chance = random.Random(5)
    processes = [await start(tmp_path, "ix") for _ in range(3)]
    try:
        for process in processes:
            assert (await said(process))[0] == "began"
        while processes:
            for process in processes:
                for _ in range(chance.randrange(1, 5)):
                    assert (await said(process))[0] == "saved"
            await kill(processes.pop())
            # Which of them was last is not known: whoever it was, what it saved is whole.
            await check_whole(tmp_path, "ix", 7)
    finally:
        for process in processes:
            await kill(process)
    await check_tidied(tmp_path, "plain")


async def test_engine_opens_what_is_left_when_the_newest_can_not_be_opened(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    save(snapshots, 5, one="of another make, but whole")
    engine = LocalEngine(SPEC, snapshots, open_plain)
    try:
        assert engine.applied == 0
        await engine.apply([entry_of(1)], 1)
        await engine.save()
    finally:
        await engine.close()
    assert await check_whole(tmp_path, "ix", 1) == 1
    assert len(names(snapshots)) == 1
