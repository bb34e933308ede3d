"""Puts the commands for indexes on this process's terminal or pipe."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import asdict
from typing import Any

import httpx
from rich.console import Console

from goatherd.terminal._api import Refused, Unreachable
from goatherd.terminal._chat import INTERRUPTED
from goatherd.terminal._index_api import IndexApi
from goatherd.terminal._index_bar import intake_meter_for
from goatherd.terminal._index_document import BadSource
from goatherd.terminal._index_hits import print_hits
from goatherd.terminal._index_load import Wish, load
from goatherd.terminal._index_show import print_document, print_index, print_indexes, print_json
from goatherd.terminal._index_sources import Choice, open_sources
from goatherd.terminal._run import _ELSEWHERE, _PIPE_PATIENCE_S, _is_loopback
from goatherd.terminal._screen import Pipe, Screen, Terminal

_TIMEOUT_S = 120.0
"""A model may have to be loaded before it embeds the first text."""
_USAGE = 2
_UNREACHABLE = 1

Action = Callable[[IndexApi, Screen], Awaitable[int]]


def create_index(url: str, body: Mapping[str, Any]) -> int:
    async def act(api: IndexApi, screen: Screen) -> int:
        made = await api.create_index(body)
        screen.notice(f"{made['name']} is there. `goatherd index load {made['name']} FOLDER` fills it.")
        if not sys.stdout.isatty():
            print_json(made, sys.stdout)
        return 0

    # Its model may have to be loaded first.
    return _run(url, act, patience_s=_PIPE_PATIENCE_S)


def list_indexes(url: str) -> int:
    async def act(api: IndexApi, screen: Screen) -> int:
        async with aclosing(api.indexes()) as indexes:
            await print_indexes(indexes, sys.stdout)
        return 0

    return _run(url, act)


def show_index(url: str, index: str) -> int:
    async def act(api: IndexApi, screen: Screen) -> int:
        print_index(await api.raw_index(index), sys.stdout)
        return 0

    return _run(url, act)


def load_index(url: str, wish: Wish, paths: Sequence[str], choice: Choice) -> int:
    """What became of it goes to stderr in words, and to stdout as JSON where that is no terminal."""

    async def act(api: IndexApi, screen: Screen) -> int:
        with ExitStack() as stack:
            try:
                sources = open_sources(paths, choice, stack)
                meter = intake_meter_for(screen, Console(stderr=True))
                loaded = await load(api, screen, meter, sources, wish)
            except BadSource as error:
                screen.problem(str(error))
                return _USAGE
            except OSError as error:
                screen.problem(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
                return _USAGE
        screen.notice(f"{loaded.index}: {loaded.told()}.")
        if not sys.stdout.isatty():
            print_json(asdict(loaded), sys.stdout)
        return 0 if loaded.whole else 1

    return _run(url, act, patience_s=_PIPE_PATIENCE_S)


def search_index(url: str, index: str, body: Mapping[str, Any]) -> int:
    async def act(api: IndexApi, screen: Screen) -> int:
        print_hits(await api.search(index, body), sys.stdout)
        return 0

    return _run(url, act)


def show_document(url: str, index: str, doc: str) -> int:
    async def act(api: IndexApi, screen: Screen) -> int:
        print_document(await api.raw_document(index, doc), sys.stdout)
        return 0

    return _run(url, act)


def delete_index(url: str, index: str, *, sure: bool) -> int:
    """Asks first, where a person can answer."""

    async def act(api: IndexApi, screen: Screen) -> int:
        if not sure:
            count = (await api.index(index)).counts.documents
            if not await _agreed(f"Delete {index} with {count:,} documents for good?"):
                screen.notice("It stays.")
                return 1
        await api.delete_index(index)
        screen.notice(f"{index} is deleted.")
        return 0

    if not sure and not (sys.stdin.isatty() and sys.stderr.isatty()):
        sys.stderr.write("Its documents would be gone for good: say --yes.\n")
        return _USAGE
    return _run(url, act)


def change_index(url: str, index: str, what: str, body: Mapping[str, Any] | None = None) -> int:
    """`pause`, `resume`, `cancel`, `retry` or `rebuild`: what it has become is said."""

    async def act(api: IndexApi, screen: Screen) -> int:
        answer = await api.change(index, what, await _whole(api, index, body or {}))
        now = await api.index(index)
        about = f"{answer['documents']:,} documents. " if "documents" in answer else ""
        if answer.get("given_up") is not None:
            about += f"Version {answer['given_up']}, which was being built, is given up. "
        screen.notice(
            f"{about}{now.name} is {now.state}: {now.counts.documents:,} documents, {now.counts.pending:,} "
            f"pending, {now.counts.failed:,} failed."
        )
        if not sys.stdout.isatty():
            print_json(answer, sys.stdout)
        return 0

    return _run(url, act)


async def _whole(api: IndexApi, index: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whoever names another size of chunks means the splitter that there is; to the API, an object is a
    whole."""
    chunking = body.get("chunking", {})
    if not chunking or "splitter" in chunking:
        return body
    splitter = (await api.raw_index(index))["spec"]["chunking"]["splitter"]
    return {**body, "chunking": {"splitter": splitter, **chunking}}


def usage(text: str) -> int:
    """What was asked for can't be."""
    sys.stderr.write(f"{text}\n")
    return _USAGE


async def _agreed(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = await asyncio.to_thread(sys.stdin.readline)
    return answer.strip().lower() in ("y", "yes")


def _run(url: str, act: Action, *, patience_s: float = 0.0) -> int:
    """The exit code. What goes wrong is told in a line. `patience_s`: how long an outage is waited out once
    the API has answered."""
    url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
    tty = sys.stderr.isatty()
    screen: Screen = Terminal(Console(stderr=True)) if tty else Pipe(sys.stdout, sys.stderr)
    try:
        return asyncio.run(_reached(url, act, screen, patience_s))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _reached(url: str, act: Action, screen: Screen, patience_s: float) -> int:
    # A proxy from the environment is not asked for what runs on this machine.
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=not _is_loopback(url)) as http:
        api = IndexApi(http, notice=screen.notice, patience_s=0.0)
        try:
            if patience_s:
                async with aclosing(api.indexes()) as indexes:
                    async for _ in indexes:  # Is somebody there at all?
                        break
                api.patience_s = patience_s
            return await act(api, screen)
        except Unreachable as error:
            screen.problem(f"Nothing answers at {url} ({error}). {_ELSEWHERE}")
        except Refused as refusal:
            screen.problem(str(refusal) if refusal.code else f"{refusal} {_ELSEWHERE}")
        except (json.JSONDecodeError, KeyError):
            screen.problem(f"{url} answered something that is not Goatherd's API. {_ELSEWHERE}")
        return _UNREACHABLE
