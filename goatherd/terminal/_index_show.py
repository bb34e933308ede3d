"""What `goatherd index list`, `show` and `doc` put out: text for people, a line of JSON for programs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from goatherd.terminal._index_document import DIGEST
from goatherd.terminal._screen import _clean


async def print_indexes(indexes: AsyncIterable[Mapping[str, Any]], out: TextIO) -> None:
    """On a terminal a table; elsewhere a line each."""
    if not out.isatty():
        async for index in indexes:
            print_json(index, out)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("index", "state", "model", "backend", "metric"):
        table.add_column(name, no_wrap=True)
    async for index in indexes:
        spec = index["spec"]
        table.add_row(
            *(Text(_clean(str(field))) for field in (index["name"], index["state"], vectors_of(spec))),
            *(Text(_clean(str(spec.get(name, "")))) for name in ("backend", "metric")),
        )
    Console(file=out).print(table)


def print_index(index: Mapping[str, Any], out: TextIO) -> None:
    if not out.isatty():
        print_json(index, out)
        return
    spec, counts = index["spec"], index.get("counts") or {}
    building = f", {index['building']} is being built" if index.get("building") else ""
    rows = {
        "id": index["id"],
        "state": index["state"],
        "version": f"{index['version']}{building}",
        "documents": f"{counts.get('documents', 0):,}",
        "taken in": f"{counts.get('chunks', 0):,} chunks; {counts.get('pending', 0):,} pending, "
        f"{counts.get('failed', 0):,} failed",
        "vectors": f"{vectors_of(spec)}, {spec.get('dimensions', 0)} dimensions, {spec.get('metric', '')}",
        "words": f"{spec.get('lexical', '')}, language {spec.get('language', '')}",
        "backend": _with(spec.get("backend", ""), spec.get(str(spec.get("backend", "")))),
        "chunking": _with("", spec.get("chunking")),
        "metadata": json.dumps(index.get("metadata") or {}, ensure_ascii=False),
    }
    console = Console(file=out, highlight=False)
    console.print(Text(_clean(index["name"]), style="bold"))
    for name, value in rows.items():
        console.print(Text.assemble((f"  {name:<10}", "dim"), _clean(str(value))), soft_wrap=True)


def print_document(document: Mapping[str, Any], out: TextIO) -> None:
    if not out.isatty():
        print_json(document, out)
        return
    metadata = {name: value for name, value in document.get("metadata", {}).items() if name != DIGEST}
    console = Console(file=out, highlight=False)
    console.print(Text(_clean(document["id"]), style="bold cyan"), soft_wrap=True)
    console.print(
        Text(f"  {document.get('status', '')}, changed {document.get('updated_at', '')}", style="dim")
    )
    for name, value in metadata.items():
        told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        console.print(Text.assemble((f"  {_clean(name)}: ", "dim"), _clean(told)), soft_wrap=True)
    if document.get("error"):
        console.print(Text(f"  {_clean(document['error'].get('message', ''))}", style="red"), soft_wrap=True)
    console.print(Text(f"\n{_clean(document.get('text', ''))}"), soft_wrap=True)


def vectors_of(spec: Mapping[str, Any]) -> str:
    """Where vectors come from."""
    if spec.get("model"):
        return str(spec["model"])
    return "given" if spec.get("dimensions") else "words only"


def print_json(value: object, out: TextIO) -> None:
    print(json.dumps(value, ensure_ascii=False), file=out, flush=True)


def _with(name: str, options: Mapping[str, Any] | None) -> str:
    """Options that are set, as `name=value`."""
    given = [f"{key}={value}" for key, value in (options or {}).items() if value is not None]
    return " ".join([name, *given]).strip()
