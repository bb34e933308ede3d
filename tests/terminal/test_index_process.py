"""`goatherd index` as it is called."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from goatherd.cli import app
from tests.terminal.conftest import served
from tests.terminal.index_server import INDEX, FakeIndex

# A runner that was started in the background ignores SIGINT, and so would all that it starts.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from goatherd.cli import main; main()"
)


async def _start(url: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "index", *arguments),
        env={**os.environ, "GOATHERD_URL": url},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


async def _run(url: str, *arguments: str, text: bytes = b"") -> tuple[int, str, str]:
    """The same in this process, which is quicker."""
    ran = await asyncio.to_thread(
        CliRunner().invoke, app, ["index", *arguments], input=text, env={"GOATHERD_URL": url}
    )
    return ran.exit_code, ran.stdout, ran.stderr


async def test_from_an_index_to_hits(tmp_path: Path) -> None:
    (tmp_path / "goats.md").write_text("# Goats\nThey climb.", encoding="utf-8")
    hit = {"id": "goats.md", "text": "They climb.", "highlights": ["They \x02climb\x03."]}
    fake = FakeIndex(hits=[hit])
    async with served(fake) as url:  # type: ignore[arg-type]
        options = ("--model", "minilm", "--chunk-size", "500", "--option", "faiss.kind=flat")
        code, out, err = await _run(url, "create", INDEX, *options, "--metadata", '{"of": "us"}')
        assert code == 0, err
        assert json.loads(out)["name"] == INDEX
        assert fake.created == {
            "name": INDEX,
            "model": "minilm",
            "chunking": {"size": 500},
            "faiss": {"kind": "flat"},
            "metadata": {"of": "us"},
        }
        code, out, err = await _run(url, "load", INDEX, str(tmp_path))
        assert code == 0, err
        assert json.loads(out)["sent"] == 1
        assert "docs: 1 sent." in err
        line = b'{"id": "ibex", "text": "Climbs higher."}\n'
        assert (await _run(url, "load", INDEX, "-", text=line))[0] == 0
        assert fake.ids() == ["goats.md", "ibex"]
        code, out, _ = await _run(
            url, "search", INDEX, "who climbs?", "-k", "3", "--filter", '{"title": "Goats"}', "--explain"
        )
        assert [json.loads(one) for one in out.splitlines()] == [hit]
        assert fake.calls[-1][1] == {
            "text": "who climbs?",
            "k": 3,
            "highlight": True,
            "filter": {"title": "Goats"},
            "explain": True,
        }
        code, out, _ = await _run(url, "doc", INDEX, "goats.md")
        assert json.loads(out)["metadata"]["title"] == "Goats"
        assert [json.loads(one)["name"] for one in (await _run(url, "list"))[1].splitlines()] == [INDEX]
        assert json.loads((await _run(url, "show", INDEX))[1])["counts"]["documents"] == 2


async def test_an_index_is_told_what_to_do() -> None:
    fake = FakeIndex(failed=["a", "b"])
    async with served(fake) as url:  # type: ignore[arg-type]
        code, _, err = await _run(url, "retry", INDEX)
        assert (code, err.startswith("2 documents. docs is ready")) == (0, True)
        assert "docs is paused" in (await _run(url, "pause", INDEX))[2]
        assert "docs is ready" in (await _run(url, "resume", INDEX))[2]
        code, out, _ = await _run(
            url, "rebuild", INDEX, "--backend", "scann", "--option", "scann.reorder=400"
        )
        assert json.loads(out)["state"] == "building"
        code, _, err = await _run(url, "cancel", INDEX)
        assert (code, "Version 2, which was being built, is given up." in err) == (0, True)
        assert [what for what, _ in fake.calls] == ["retry", "pause", "resume", "rebuild", "cancel"]
        assert fake.calls[3][1] == {"backend": "scann", "scann": {"reorder": 400}}
        fake.created = {"chunking": {"splitter": "markdown", "size": 1_000, "overlap": 100}}
        await _run(url, "rebuild", INDEX, "--chunk-size", "500")
        assert fake.calls[-1][1] == {"chunking": {"splitter": "markdown", "size": 500}}
        await _run(url, "rebuild", INDEX, "--chunk-size", "500", "--splitter", "text")
        assert fake.calls[-1][1] == {"chunking": {"splitter": "text", "size": 500}}
        assert (await _run(url, "delete", INDEX))[0] == 2
        assert fake.there
        assert (await _run(url, "delete", INDEX, "--yes"))[0] == 0
        assert not fake.there


async def test_what_can_not_be_is_said_in_a_line(tmp_path: Path) -> None:
    fake = FakeIndex()
    async with served(fake) as url:  # type: ignore[arg-type]
        for arguments, code, said in [
            (("show", "none"), 1, "There is no index 'none'.\n"),
            (("load", "none", str(tmp_path)), 1, "There is no index 'none'.\n"),
            (("load", INDEX, str(tmp_path)), 2, "There is no document in it: nothing is sent.\n"),
            (("load", INDEX, f"{tmp_path}/none"), 2, f"{tmp_path}/none: No such file or directory.\n"),
            (("load", INDEX, "-"), 2, "Line 1: it is not JSON"),
            (("search", INDEX, "x", "--filter", "{"), 2, "--filter is not JSON"),
            (
                ("search", INDEX, "x", "--filter", '{"a": {"like": 1}}'),
                2,
                "--filter/a: 'like' is no operator",
            ),
            (("create", INDEX, "--option", "faiss"), 2, "--option 'faiss' is not KEY=VALUE.\n"),
            (("create", INDEX, "--backend", "paper"), 1, "The request is invalid.\n"),
            (("doc", INDEX, "a/b"), 1, "There is no document 'a/b'"),
        ]:
            found = await _run(url, *arguments, text=b"{\n")
            assert found[:2] == (code, ""), arguments
            assert found[2].startswith(said), arguments
    code, _, err = await _run(url, "list")
    assert code == 1
    assert err.startswith(f"Nothing answers at {url}")


@pytest.mark.parametrize(("answer", "code", "there"), [(b"n\n", 1, True), (b"y\n", 0, False)])
async def test_a_person_is_asked_before_documents_are_gone(answer: bytes, code: int, there: bool) -> None:
    fake = FakeIndex(docs={"a": {}, "b": {}})
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer)
        async with served(fake) as url:  # type: ignore[arg-type]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM, "index", "delete", INDEX),
                env={**os.environ, "GOATHERD_URL": url},
                stdin=theirs,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=theirs,
            )
            assert await process.wait() == code
        assert b"Delete docs with 2 documents for good? [y/N]" in os.read(ours, 4_096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert fake.there is there


async def test_ctrl_c_leaves_what_was_sent(tmp_path: Path) -> None:
    (tmp_path / "goats.md").write_text("They climb.", encoding="utf-8")
    fake = FakeIndex(takes=0)
    async with served(fake) as url:  # type: ignore[arg-type]
        process = await _start(url, "load", INDEX, str(tmp_path))
        while not fake.docs:
            fake.looked.clear()
            await fake.looked.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130, err.decode()
        assert "What was sent stays" in err.decode()
        fake.takes = 100
        code, out, _ = await _run(url, "load", INDEX, str(tmp_path))
        assert (code, json.loads(out)["unchanged"]) == (0, 1)


@pytest.mark.parametrize("command", ["create", "load", "search", "rebuild"])
def test_each_says_what_it_takes(command: str) -> None:
    shown = CliRunner().invoke(app, ["index", command, "--help"], env={"COLUMNS": "200"})
    assert (shown.exit_code, "NAME" in shown.output) == (0, True)
