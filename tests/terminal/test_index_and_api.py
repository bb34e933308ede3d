"""`goatherd index` and the API itself: that they mean the same. What workers do is done at once here."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from goatherd.terminal._api import Refused
from goatherd.terminal._index_api import IndexApi, IndexView
from goatherd.terminal._index_bar import IntakeLines
from goatherd.terminal._index_document import Source
from goatherd.terminal._index_files import Files
from goatherd.terminal._index_hits import print_hits
from goatherd.terminal._index_lines import Lines
from goatherd.terminal._index_load import Loaded, Wish, load
from goatherd.terminal._index_show import print_document, print_index, print_indexes
from goatherd.terminal._screen import Pipe
from tests.api.index_house import MODEL, IndexHouse, index_house
from tests.terminal.test_index_show import Tty


class TakingApi(IndexApi):
    """Whenever it looks at an index, everything has just been taken in."""

    def __init__(self, house: IndexHouse, *, notice: Callable[[str], None]) -> None:
        super().__init__(house.http, notice=notice, patience_s=0.0)
        self._house = house
        self.failing: Sequence[str] = ()

    async def index(self, index: str) -> IndexView:
        if (await super().index(index)).state != "paused":
            await self._house.take_in(failing=self.failing)
        return await super().index(index)


class Desk:
    """A client of the API, and what it was told."""

    def __init__(self, house: IndexHouse) -> None:
        self.err = io.StringIO()
        self.screen = Pipe(io.StringIO(), self.err)
        self.api = TakingApi(house, notice=self.screen.notice)

    async def load(self, *sources: Source, failing: Sequence[str] = (), **wish: Any) -> Loaded:
        meter = IntakeLines(self.screen.notice)
        self.api.failing = failing
        return await load(self.api, self.screen, meter, sources, Wish("docs", **wish), look_s=0.001)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with index_house() as house:
        yield Desk(house)


def lines(*documents: object) -> Lines:
    return Lines(io.BytesIO("".join(json.dumps(one) + "\n" for one in documents).encode()))


async def test_a_folder_is_loaded_again_and_found(desk: Desk, tmp_path: Path) -> None:
    await desk.api.create_index({"name": "docs", "model": MODEL})
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "a%2Fb?.md").write_text("# Goats\ngoats climb", encoding="utf-8")
    (tmp_path / "sheep.md").write_text("sheep follow", encoding="utf-8")
    assert (await desk.load(Files(tmp_path))).told() == "2 sent"
    assert (await desk.load(Files(tmp_path))).told() == "2 unchanged"
    (tmp_path / "sheep.md").unlink()
    assert (await desk.load(Files(tmp_path), delete=True)).told() == "1 unchanged, 1 removed"
    body = {"text": "goats", "mode": "lexical", "highlight": True, "explain": True}
    found = await desk.api.search("docs", body)
    assert [hit["id"] for hit in found["hits"]] == ["sub dir/a%2Fb?.md"]
    out = Tty()
    print_hits(found, out)
    assert "Goats  0–19  " in out.plain()
    assert "by meaning –, by words 1 (1.000)" in out.plain()
    document = await desk.api.raw_document("docs", "sub dir/a%2Fb?.md")
    assert document["metadata"]["path"] == "sub dir/a%2Fb?.md"
    print_document(document, Tty())


async def test_more_than_a_page_is_known(desk: Desk) -> None:
    await desk.api.create_index({"name": "docs"})
    many = [{"id": f"{number:04}", "text": "x", "metadata": {"n": number}} for number in range(1_005)]
    assert (await desk.load(lines(*many))).sent == 1_005
    again = await desk.load(lines(*many[:1_003], {"id": "new", "text": "y"}), delete=True)
    assert (again.sent, again.unchanged, again.removed) == (1, 1_003, 2)


async def test_what_the_api_refuses_is_told_by_id(desk: Desk) -> None:
    await desk.api.create_index({"name": "docs", "model": MODEL})
    wrong = {"id": "wrong", "text": "x", "metadata": {"long": "x" * 2_000}}
    loaded = await desk.load(lines({"id": "blank", "text": " "}, {"id": "a", "text": "x"}, wrong))
    assert (loaded.sent, loaded.refused) == (1, 2)
    assert "blank: The document has no text to find it by. (/text)" in desk.err.getvalue()
    assert "(/metadata/long)" in desk.err.getvalue()
    # A request of which nothing is kept is another answer.
    loaded = await desk.load(lines({"id": "empty", "text": ""}))
    assert (loaded.sent, loaded.refused) == (0, 1)
    assert "empty: The document has no text to find it by." in desk.err.getvalue()


async def test_what_fails_is_told_and_tried_again(desk: Desk) -> None:
    await desk.api.create_index({"name": "docs"})
    loaded = await desk.load(lines({"id": "a", "text": "x"}, {"id": "b", "text": "y"}), failing=["b"])
    assert (loaded.sent, loaded.failed) == (2, 1)
    assert "b: It is no good." in desk.err.getvalue()
    assert (await desk.api.change("docs", "retry", {}))["documents"] == 1
    assert (
        await desk.load(lines({"id": "a", "text": "x"}, {"id": "b", "text": "y"}))
    ).told() == "2 unchanged"


async def test_an_index_is_made_shown_changed_and_deleted(desk: Desk) -> None:
    made = await desk.api.create_index({"name": "docs", "model": MODEL, "faiss": {"kind": "flat"}})
    assert await desk.api.create_index({"name": "docs", "model": MODEL, "faiss": {"kind": "flat"}}) == made
    out = Tty()
    await print_indexes(desk.api.indexes(), out)
    assert out.plain().splitlines()[1].split() == ["docs", "ready", MODEL, "faiss", "cosine"]
    print_index(await desk.api.raw_index("docs"), out)
    assert f"{MODEL}, 4 dimensions, cosine" in out.plain()
    assert (await desk.api.change("docs", "pause", {}))["state"] == "paused"
    loaded = await desk.load(lines({"id": "a", "text": "x"}))
    assert loaded.whole
    assert (await desk.api.change("docs", "resume", {}))["state"] == "ready"
    assert (await desk.api.change("docs", "rebuild", {"metric": "ip"}))["state"] == "building"
    assert (await desk.api.change("docs", "cancel", {}))["index"]["state"] == "ready"
    await desk.api.delete_index("docs")
    with pytest.raises(Refused, match="'docs'"):
        await desk.api.index("docs")
