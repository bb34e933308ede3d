"""`goatherd index load` against a served stand-in: what is sent, what is not, and how it is told."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from goatherd.terminal._api import Refused
from goatherd.terminal._index_api import IndexApi
from goatherd.terminal._index_bar import IntakeBars, IntakeLines
from goatherd.terminal._index_document import BadSource
from goatherd.terminal._index_files import Files
from goatherd.terminal._index_lines import Lines
from goatherd.terminal._index_load import BATCH_LINES, Loaded, Wish, load
from goatherd.terminal._screen import Pipe
from tests.terminal.conftest import served
from tests.terminal.index_server import INDEX, FakeIndex
from tests.terminal.server import problem
from tests.terminal.test_index_files import no_entry


class Desk:
    """A client of the stand-in, a folder, and what was said."""

    def __init__(self, fake: FakeIndex, http: httpx.AsyncClient, folder: Path) -> None:
        self.fake = fake
        self.folder = folder
        self.err = io.StringIO()
        self.screen = Pipe(io.StringIO(), self.err)
        self.api = IndexApi(http, notice=self.screen.notice, patience_s=5.0, retry_s=0.01)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.md").write_text(text, encoding="utf-8")

    async def load(self, *, delete: bool = False, prefix: str = "", wait: bool = True) -> Loaded:
        sources = [Files(self.folder, prefix=prefix)]
        wish = Wish(INDEX, delete=delete, prefix=prefix, wait=wait)
        meter = IntakeLines(self.screen.notice)
        return await load(self.api, self.screen, meter, sources, wish, look_s=0.001)

    async def load_lines(self, *lines: object) -> Loaded:
        file = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
        meter = IntakeLines(self.screen.notice)
        return await load(self.api, self.screen, meter, [Lines(file)], Wish(INDEX), look_s=0.001)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    fake = FakeIndex()
    async with (
        served(fake) as url,  # type: ignore[arg-type]
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        yield Desk(fake, http, tmp_path)


async def test_again_only_what_has_changed_is_sent(desk: Desk) -> None:
    desk.write(one="One", two="Two", three="Three")
    first = await desk.load()
    assert (first.sent, first.unchanged, first.pending, first.whole) == (3, 0, 0, True)
    assert desk.fake.ids() == ["one.md", "three.md", "two.md"]
    desk.write(two="Second")
    again = await desk.load()
    assert (again.sent, again.unchanged) == (1, 2)
    assert desk.fake.batches[-1] == ["two.md"]
    assert desk.fake.docs["two.md"]["text"] == "Second"
    assert (await desk.load()).told() == "3 unchanged"


async def test_what_is_gone_is_removed_if_that_is_asked_for(desk: Desk) -> None:
    desk.fake.docs["by hand"] = {"id": "by hand", "text": "x", "metadata": {}}
    desk.write(one="One", two="Two")
    await desk.load(prefix="a/")
    await desk.load(prefix="b/")
    (desk.folder / "two.md").unlink()
    assert (await desk.load(prefix="a/")).removed == 0
    assert (await desk.load(prefix="a/", delete=True)).removed == 1
    assert desk.fake.ids() == ["a/one.md", "b/one.md", "b/two.md", "by hand"]


async def test_what_can_not_be_read_is_not_gone(desk: Desk) -> None:
    desk.write(one="One", two="Two")
    await desk.load()
    (desk.folder / "two.md").write_bytes(b"\xff")
    loaded = await desk.load(delete=True)
    assert (loaded.left_out, loaded.removed, loaded.unchanged, loaded.whole) == (1, 0, 1, False)
    assert "two.md: it is not UTF-8 (at byte 0)." in desk.err.getvalue()
    assert desk.fake.ids() == ["one.md", "two.md"]


async def test_what_is_below_a_folder_that_can_not_be_read_is_not_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk.folder / "sub" / "deep").mkdir(parents=True)
    (desk.folder / "subway").mkdir()
    desk.write(**{"one": "One", "sub/two": "Two", "sub/deep/three": "Three", "subway/four": "Four"})
    await desk.load()
    (desk.folder / "subway" / "four.md").unlink()
    no_entry(monkeypatch, desk.folder / "sub")
    loaded = await desk.load(delete=True)
    assert (loaded.removed, loaded.left_out, loaded.unchanged, loaded.whole) == (1, 1, 1, False)
    assert "sub/: the folder can't be read (Permission denied)." in desk.err.getvalue()
    assert desk.fake.ids() == ["one.md", "sub/deep/three.md", "sub/two.md"]


async def test_many_go_in_batches_and_both_counts_are_told(desk: Desk) -> None:
    desk.fake.takes = 400
    lines = [{"id": str(number), "text": "x"} for number in range(BATCH_LINES * 2 + 1)]
    assert (await desk.load_lines(*lines)).sent == len(lines)
    assert [len(batch) for batch in desk.fake.batches] == [BATCH_LINES, BATCH_LINES, 1]
    assert "1,001 of 1,001 sent, 1,001 taken in" in desk.err.getvalue()


async def test_large_ones_go_in_several_requests(desk: Desk) -> None:
    await desk.load_lines(*({"id": str(number), "text": "x" * 400_000} for number in range(5)))
    assert [len(batch) for batch in desk.fake.batches] == [2, 2, 1]


async def test_an_outage_is_waited_out(desk: Desk) -> None:
    desk.fake.failures = [problem(503, "unavailable", "A moment.")] * 2
    desk.write(one="One")
    assert (await desk.load()).sent == 1
    assert "trying again" in desk.err.getvalue()


async def test_what_was_broken_off_goes_on_with_the_rest(desk: Desk) -> None:
    lines = [{"id": str(number), "text": "x"} for number in range(BATCH_LINES + 1)]
    fine = desk.fake.put

    async def closed_after_one(request: object) -> object:
        if desk.fake.batches:
            return problem(409, "conflict", "Not now.")
        return await fine(request)  # type: ignore[arg-type]

    desk.fake.put = closed_after_one  # type: ignore[assignment, method-assign]
    async with (
        served(desk.fake) as url,  # type: ignore[arg-type]
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        with pytest.raises(Refused, match="Not now"):
            await Desk(desk.fake, http, desk.folder).load_lines(*lines)
    assert len(desk.fake.docs) == BATCH_LINES
    loaded = await desk.load_lines(*lines)
    assert (loaded.sent, loaded.unchanged) == (1, BATCH_LINES)


async def test_whoever_breaks_it_off_is_told_what_stays(desk: Desk) -> None:
    desk.fake.takes = 0
    desk.write(one="One")
    loading = asyncio.create_task(desk.load())
    while not desk.fake.docs:
        desk.fake.looked.clear()
        await desk.fake.looked.wait()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert "It is not complete: 1 sent. What was sent stays" in desk.err.getvalue()


async def test_what_the_index_can_not_have_is_named(desk: Desk) -> None:
    desk.fake.refused, desk.fake.unfit = ("one.md",), ("two.md",)
    desk.write(one="One", two="Two", three="Three")
    loaded = await desk.load()
    assert (loaded.sent, loaded.refused, loaded.failed, loaded.whole) == (2, 1, 1, False)
    said = desk.err.getvalue()
    assert "one.md: It has no text. (/text)" in said
    assert "two.md: The model could not." in said
    assert "`goatherd index retry docs`" in said


async def test_a_batch_of_which_nothing_is_kept_hinders_no_other(desk: Desk) -> None:
    desk.fake.refused = tuple(str(number) for number in range(BATCH_LINES))
    loaded = await desk.load_lines(*({"id": str(n), "text": "x"} for n in range(BATCH_LINES + 1)))
    assert (loaded.sent, loaded.refused) == (1, BATCH_LINES)
    said = desk.err.getvalue()
    assert "19: It has no text." in said
    assert "480 more are refused." in said


async def test_a_paused_index_is_not_waited_for(desk: Desk) -> None:
    desk.fake.state = "paused"
    desk.write(one="One")
    loaded = await desk.load()
    assert (loaded.sent, loaded.pending) == (1, 1)
    assert "`goatherd index resume docs`" in desk.err.getvalue()


async def test_nobody_has_to_wait(desk: Desk) -> None:
    desk.fake.takes = 0
    desk.write(one="One")
    assert (await desk.load(wait=False)).sent == 1
    assert desk.fake.pending == ["one.md"]


async def test_nothing_and_twins_are_no_load(desk: Desk) -> None:
    with pytest.raises(BadSource, match="no document"):
        await desk.load(delete=True)
    with pytest.raises(BadSource, match="two documents 'a'"):
        await desk.load_lines({"id": "a", "text": "1"}, {"id": "a", "text": "2"})
    assert desk.fake.batches == []


def test_bars_show_both_counts() -> None:
    out = io.StringIO()
    bars = IntakeBars(Console(file=out, force_terminal=True, width=100))
    with bars.begun(1_000):
        bars.at(900, 250, 100)
    assert "900/900" in out.getvalue()
    assert "250/900" in out.getvalue()
    with IntakeBars(Console(file=out)).begun(0):
        pass


def test_lines_tell_the_rate_and_what_is_left() -> None:
    said: list[str] = []
    now = 0.0
    meter = IntakeLines(said.append, lambda: now)
    with meter.begun(100):
        meter.at(50, 0)
        now = 10.0
        meter.at(100, 20)
        now = 11.0
        meter.at(90, 90, 10)
        meter.at(90, 90, 10)
    assert said == [
        "100 of 100 sent, 20 taken in, 2/s, 0:40 left",
        "90 of 90 sent, 90 taken in, 8/s",
    ]
