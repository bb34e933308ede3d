"""The same script gives the same run: in another process, with other hashes, and whatever the bursts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .tree import Drive

ROOT = Path(__file__).parents[2]


def _digest(hash_seed: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "tests.actors.tree", "5", "10000"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def test_ten_thousand_messages_go_the_same_way_in_a_process_with_other_hashes() -> None:
    assert _digest("1") == _digest("2")


def test_the_script_makes_actors_do_all_that_they_can() -> None:
    seen, letters, replies, _, _ = Drive(5, None).run(10_000)

    kinds = {what[2].strip("'").partition("(")[0].rpartition(".")[2] for what in seen}
    assert kinds >= {"start", "stash", "PreRestart", "PostStop", "Terminated", "ChildFailed", "Gone"}
    assert kinds >= {"Rang", "Answered", "Failed", "Translated", "Note", "Ask", "Lent"}
    assert {reason for _, _, reason in letters} >= {"stopped", "mailbox-full"}
    assert any(values for values, _ in replies)
    codes = {code for _, errors in replies for code, _ in errors}
    assert codes >= {"actor-stopped", "actor-failed"}


@pytest.mark.parametrize("limit", [1, 3, 7, 31, 33, 100])
def test_how_many_messages_are_handled_in_one_go_changes_nothing(limit: int) -> None:
    class Bursts(Drive):
        def _snapshot(self) -> None:
            """None: only the bursts."""

    assert Bursts(3, limit).run(1_000) == Drive(3, None).run(1_000)
