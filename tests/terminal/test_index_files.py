"""Which files become documents, what is known of them, and files of documents."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from goatherd.terminal._index_document import DIGEST, BadSource, LoadedDocument
from goatherd.terminal._index_files import Files, title_of
from goatherd.terminal._index_lines import Lines
from goatherd.terminal._index_sources import Choice, open_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path, "README.md", "Intro\n\n# Goats #\n\nText.")
    _write(tmp_path, "docs/climbing.md", "```\n# no heading\n```\n## Up a tree\n")
    _write(tmp_path, "docs/notes.txt", "A note.")
    _write(tmp_path, "src/herd.py", "GOATS = 3\n")
    _write(tmp_path, "src/__init__.py", " \n")
    _write(tmp_path, "src/__pycache__/herd.txt", "No.")
    _write(tmp_path, ".git/notes.txt", "No.")
    _write(tmp_path, "env/pyvenv.cfg", "home = /usr")
    _write(tmp_path, "env/lib/x.py", "No.")
    _write(tmp_path, "picture.png", "No.")
    return tmp_path


def _write(folder: Path, name: str, text: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _ids(files: Files) -> list[str]:
    return [document.id for document in files.documents()]


def test_a_folder_is_its_text_markdown_and_code(folder: Path) -> None:
    assert _ids(Files(folder)) == ["README.md", "docs/climbing.md", "docs/notes.txt", "src/herd.py"]


@pytest.mark.parametrize(
    ("include", "exclude", "ids"),
    [
        (["*.md"], [], ["README.md", "docs/climbing.md"]),
        (["docs/*"], [], ["docs/climbing.md", "docs/notes.txt"]),
        (["*.md", "*.txt"], ["docs"], ["README.md"]),
        (["*.md", "*.txt"], ["docs/*.md"], ["README.md", "docs/notes.txt"]),
        (["*.png"], [], ["picture.png"]),
    ],
)
def test_patterns_choose_by_name_or_by_path(
    folder: Path, include: Sequence[str], exclude: Sequence[str], ids: list[str]
) -> None:
    assert _ids(Files(folder, include=include, exclude=exclude)) == ids


def test_a_document_says_where_it_is_what_it_is_called_and_from_when(folder: Path) -> None:
    os.utime(folder / "docs/climbing.md", (86_400 * 365, 86_400 * 365))
    document = next(one for one in Files(folder, prefix="site/").documents() if "climbing" in one.id)
    body = json.loads(document.line())
    assert body["id"] == "site/docs/climbing.md"
    assert body["metadata"] == {
        "path": "docs/climbing.md",
        "title": "Up a tree",
        "modified": "1971-01-01T00:00:00Z",
        DIGEST: document.digest(),
    }


def test_what_only_was_touched_has_not_changed(folder: Path) -> None:
    (before,) = Files(folder / "docs/notes.txt").documents()
    os.utime(folder / "docs/notes.txt", (1, 1))
    (touched,) = Files(folder / "docs/notes.txt").documents()
    assert touched.more != before.more
    assert touched.digest() == before.digest()
    _write(folder, "docs/notes.txt", "Another note.")
    (changed,) = Files(folder / "docs/notes.txt").documents()
    assert changed.digest() != before.digest()


def test_what_is_no_text_is_left_out_with_a_reason(tmp_path: Path) -> None:
    _write(tmp_path, "latin.txt", b"caf\xe9")
    _write(tmp_path, "nul.txt", b"a\0b")
    _write(tmp_path, "large.txt", b"x" * (1 << 20) + b"x")
    _write(tmp_path, "line\nbreak.txt", "x")
    _write(tmp_path, "good.txt", b"\xef\xbb\xbfgood")
    files = Files(tmp_path)
    assert [document.text for document in files.documents()] == ["good"]
    assert {id: why.split(" ")[-1] for id, why in files.left_out.items()} == {
        "latin.txt": "3)",
        "nul.txt": "text",
        "large.txt": "1,048,576",
        "line\nbreak.txt": "otherwise",
    }


def no_entry(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """To this folder: also for the superuser, whom its mode would not stop."""
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


def test_a_folder_that_can_not_be_read_is_not_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_entry(monkeypatch, folder / "docs")
    files = Files(folder, prefix="site/")
    assert _ids(files) == ["site/README.md", "site/src/herd.py"]
    assert files.left_out == {"site/docs/": "the folder can't be read (Permission denied)"}
    no_entry(monkeypatch, folder)
    with pytest.raises(PermissionError):
        _ids(files)


def test_a_file_that_nobody_can_look_at_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Path.stat

    def guarded(path: Path, **options: bool) -> os.stat_result:
        if path.name == "notes.txt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", guarded)
    (folder / "broken.md").symlink_to("nowhere")
    files = Files(folder)
    assert _ids(files) == ["README.md", "docs/climbing.md", "src/herd.py"]
    assert files.left_out == {"docs/notes.txt": "Permission denied"}


@pytest.mark.parametrize(
    ("prefix", "name", "id"),
    [
        ("../", "a.txt", "../a.txt"),
        ("/", "a.txt", "/a.txt"),
        ("a//", "a.txt", "a//a.txt"),
        ("", "%2e", "%2e"),
    ],
)
def test_a_file_whose_id_would_make_another_path_is_left_out(
    tmp_path: Path, prefix: str, name: str, id: str
) -> None:
    _write(tmp_path, name, "Text.")
    files = Files(tmp_path, include=["*"], prefix=prefix)
    assert _ids(files) == []
    assert "name the document otherwise" in files.left_out[id]


def test_a_file_that_is_named_needs_no_pattern(folder: Path) -> None:
    _write(folder, "list.csv", "a,b")
    assert _ids(Files(folder / "list.csv")) == ["list.csv"]
    with pytest.raises(FileNotFoundError):
        _ids(Files(folder / "none"))


@pytest.mark.parametrize(
    ("path", "text", "title"),
    [
        ("a.md", "# One\n# Two", "One"),
        ("a.md", "Nothing", "a.md"),
        ("b/c.py", "# Not a title", "c.py"),
    ],
)
def test_a_title_is_a_markdown_heading_or_a_name(path: str, text: str, title: str) -> None:
    assert title_of(path, text) == title


# -- files of documents


def _lines(text: str, prefix: str = "") -> list[LoadedDocument]:
    return list(Lines(io.BytesIO(text.encode()), prefix=prefix).documents())


def test_a_line_is_a_document() -> None:
    goat, ibex = _lines(
        '\ufeff{"id": "goat", "text": "Climbs."}\n\n'
        '{"id": "ibex", "vector": [1, 0.5], "metadata": {"high": true, "load_digest": "old"}}\n',
        "animals/",
    )
    assert (goat.id, goat.text, goat.vector) == ("animals/goat", "Climbs.", None)
    body = json.loads(ibex.line())
    assert body["vector"] == [1, 0.5]
    assert body["metadata"] == {"high": True, DIGEST: ibex.digest()}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Line 2: it is not JSON"),
        ('"goat"', "Line 2: it is no document"),
        ('{"text": "x"}', "Line 2: `id`: Field required"),
        ('{"id": "a", "body": "x"}', "Line 2: `body`"),
        ('{"id": "a\\n", "text": "x"}', "Line 2: `id`"),
        ('{"id": "../a", "text": "x"}', "Line 2: `id`"),
        ('{"id": "a/%2E%2e", "text": "x"}', "name the document otherwise"),
        ('{"id": "a", "metadata": {"x": NaN}}', "NaN is not a JSON value"),
        ('{"id": "a", "text": "\\ud800"}', "surrogate"),
    ],
)
def test_a_line_that_is_none_is_named(line: str, why: str) -> None:
    with pytest.raises(BadSource, match="Line 2") as caught:
        _lines(f'{{"id": "goat", "text": "x"}}\n{line}\n')
    assert why in str(caught.value)


def test_not_all_wrong_lines_are_told() -> None:
    with pytest.raises(BadSource) as caught:
        _lines("[]\n" * 50)
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("30 more lines are wrong.")


def test_a_path_stands_for_lines_or_for_files(folder: Path) -> None:
    _write(folder, "animals.jsonl", '{"id": "goat", "text": "Climbs."}\n')
    with ExitStack() as stack:
        paths = [str(folder / "animals.jsonl"), str(folder / "docs")]
        sources = open_sources(paths, Choice(include=("*.md",)), stack)
        found = [document.id for source in sources for document in source.documents()]
    assert found == ["goat", "climbing.md"]
    with ExitStack() as stack, pytest.raises(BadSource, match="once"):
        open_sources(["-", "-"], Choice(), stack)
