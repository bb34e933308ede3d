"""What `goatherd up` shows: a line a part as it becomes ready, then where everything is and how to try it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

Route = tuple[str, str, str]
"""Methods, path, summary."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a running Goatherd is."""

    version: str
    url: str
    temporal: str
    temporal_ui: str | None
    mongo_uri: str
    data: Path
    model: str
    routes: Sequence[Route]
    chat: str
    metrics: str = ""
    """Where the workers' metrics are, if they are served."""


class Screen:
    """Writes to a terminal with colours, else plain text. Never wraps: lines are for copying."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)

    def step(self, part: str, ready: bool, detail: str) -> None:
        """One line of progress."""
        line = Text.assemble(
            ("  ✓ " if ready else "  … ", "green" if ready else "yellow"),
            (part, "bold" if ready else ""),
            f"  {detail}" if detail else "",
            (f"  ({self.elapsed():.1f} s)", "dim"),
        )
        self._console.print(line, soft_wrap=True)

    def banner(self, facts: Facts) -> None:
        self.say(f"\nGoatherd {facts.version} is ready ({self.elapsed():.1f} s).\n", "bold green")
        pairs = [
            ("API", facts.url),
            ("Docs", f"{facts.url}/docs"),
            ("Temporal", facts.temporal),
            ("Temporal UI", facts.temporal_ui or "unknown (GOATHERD_TEMPORAL_UI)"),
            ("Store", without_secrets(facts.mongo_uri)),
            ("Data", str(facts.data)),
            ("Model", facts.model),
        ]
        if facts.metrics:
            pairs.append(("Metrics", facts.metrics))
        self._pairs(pairs)
        self.say("")
        self.routes(facts.routes)
        self.say("\nTry it:\n", "bold")
        json_type = "-H 'Content-Type: application/json'"
        for line in (
            f"  CHAT=$(curl -s {facts.url}/chat {json_type} -d '{{}}' | grep -o 'chat_[0-9a-z]*' | head -1)",
            f"  curl -sN {facts.url}/chat/$CHAT/message {json_type} -H 'Accept: text/event-stream' \\",
            """    -d '{"content": "What is the capital of France?"}'""",
            f"  {facts.chat}",
        ):
            self.say(line, "cyan")
        self.say("\nCtrl-C stops it.", "dim")

    def routes(self, routes: Sequence[Route]) -> None:
        """The route table."""
        if not routes:
            return
        methods = max(len(method) for method, _, _ in routes)
        paths = max(len(path) for _, path, _ in routes)
        for method, path, summary in routes:
            line = Text.assemble(
                (f"  {method:<{methods}}  ", "magenta"), (f"{path:<{paths}}  ", "bold"), (summary, "dim")
            )
            line.rstrip()
            self._console.print(line, soft_wrap=True)

    def elapsed(self) -> float:
        """Seconds since this screen was made."""
        return time.monotonic() - self._began

    def _pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self._console.print(
                Text.assemble((f"  {name:<{width}}  ", "dim"), (value, "bold")), soft_wrap=True
            )


def without_secrets(uri: str) -> str:
    """A MongoDB URI that can be shown: without user, password and options, some of which are secrets."""
    scheme, _, rest = uri.partition("://")
    place = rest.partition("?")[0]
    authority, slash, database = place.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{database}"


def chat_command(url: str, *, found: bool) -> str:
    """How to start the terminal chat from here; `found` says whether it would find `url` by itself."""
    name = "goatherd"
    if shutil.which(name) is None:  # the virtual environment is not active
        script = Path(sys.executable).with_name(name)
        name = str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)
    return f"{name} chat" if found else f"{name} chat --url {url}"
