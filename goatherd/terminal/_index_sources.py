"""What the paths of `goatherd index load` stand for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from goatherd.terminal._index_document import BadSource, Source
from goatherd.terminal._index_files import PATTERNS, Files
from goatherd.terminal._task_create import opened

_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which files of folders, and what their ids begin with."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    prefix: str = ""


def open_sources(paths: Sequence[str], choice: Choice, stack: ExitStack) -> list[Source]:
    """A folder, a file of JSON lines, any other file, or `-`: JSON lines from stdin. Files stay open as long
    as the stack."""
    if paths.count("-") > 1:
        raise BadSource("stdin is read once: name `-` once.")
    return [_source(path, choice, stack) for path in paths]


def _source(path: str, choice: Choice, stack: ExitStack) -> Source:
    if path == "-" or (path.lower().endswith(_LINES) and not Path(path).is_dir()):
        # The API's own checks come with a good part of the API: only who needs them waits for that.
        from goatherd.terminal._index_lines import Lines

        return Lines(stack.enter_context(opened(path)), prefix=choice.prefix)
    return Files(Path(path), include=choice.include or PATTERNS, exclude=choice.exclude, prefix=choice.prefix)
