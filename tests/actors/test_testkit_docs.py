"""docs/testing-actors.md is right: its code is executed, and its tests pass."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

_PAGE = Path(__file__).parents[2] / "docs" / "testing-actors.md"


async def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", _PAGE.read_text(), re.DOTALL | re.MULTILINE)
    page = ModuleType("docs_testing_actors")
    # Dataclasses look their module up by its name.
    monkeypatch.setitem(sys.modules, page.__name__, page)
    for block in blocks:
        exec(compile(block, str(_PAGE), "exec"), vars(page))
    tests = [thing for name, thing in vars(page).items() if name.startswith("test_")]
    assert len(tests) == 5
    for test in tests:
        outcome = test()
        if inspect.isawaitable(outcome):
            await outcome
