"""What `goatherd index search` puts out: hits with the words that were found, or JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from goatherd.terminal._screen import _clean

FOUND, OVER = "\x02", "\x03"
"""Around a word that was found, in highlights."""
_MOST_SHOWN = 320
_MOST_PIECES = 3
_SPACES = re.compile(r"\s+")


def print_hits(found: Mapping[str, Any], out: TextIO) -> None:
    """Best first. On a terminal for people; elsewhere a JSON object a line, as the API gives it."""
    hits = found["hits"]
    if not out.isatty():
        for hit in hits:
            print(json.dumps(hit, ensure_ascii=False), file=out)
        return
    console = Console(file=out, highlight=False)
    for number, hit in enumerate(hits, 1):
        console.print(_heading(number, hit), soft_wrap=True)
        for piece in pieces(hit):
            console.print(Padding(piece, (0, 0, 0, 4)))
    count = f"{len(hits):,} {'hit' if len(hits) == 1 else 'hits'}" if hits else "Nothing found"
    about = "" if found.get("exact", True) else " · nearer ones may have been missed"
    about += "" if found.get("complete", True) else " · some are left out, as they changed meanwhile"
    took = f" · {found['took_ms']:,.0f} ms" if "took_ms" in found else ""
    console.print(f"{count} · {found.get('mode', '')}{took}{about}", style="dim", markup=False)


def _heading(number: int, hit: Mapping[str, Any]) -> Text:
    text = Text.assemble((f"{number}. ", "dim"), (_clean(str(hit["id"])), "bold cyan"))
    title = hit.get("metadata", {}).get("title")
    if isinstance(title, str) and title != str(hit["id"]).rpartition("/")[2]:
        text.append(f"  {_clean(title)}", style="bold")
    text.append(f"  {hit['start']:,}–{hit['end']:,}  {hit['score']:.4f}", style="dim")
    if hit.get("explain"):
        text.append(f"  {explained(hit['explain'])}", style="dim")
    return text


def explained(ranks: Mapping[str, Any]) -> str:
    """Where it stands by meaning and by words."""
    said = []
    for name, what in (("dense", "by meaning"), ("lexical", "by words")):
        rank = ranks.get(name)
        said.append(f"{what} –" if rank is None else f"{what} {rank['rank']} ({rank['score']:.3f})")
    return ", ".join(said)


def pieces(hit: Mapping[str, Any]) -> list[Text]:
    """The pieces in which words were found; else how the chunk begins."""
    highlights = hit.get("highlights") or []
    if highlights:
        return [marked(piece) for piece in highlights[:_MOST_PIECES]]
    text = _SPACES.sub(" ", _clean(hit["text"])).strip()
    return [Text(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN].rstrip()}…")]


def marked(piece: str) -> Text:
    """With the words that were found set off."""
    text = Text()
    for part in re.split(f"({FOUND}[^{FOUND}{OVER}]*{OVER})", piece):
        found = part.startswith(FOUND) and part.endswith(OVER)
        text.append(_SPACES.sub(" ", _clean(part)), style="bold yellow" if found else "")
    return text
