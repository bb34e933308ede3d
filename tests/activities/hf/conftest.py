"""Tiny models that were trained on this machine, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from goatherd.settings import Settings

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny() -> dict[str, Path]:
    from tests.models.tiny import tiny_models

    return tiny_models(Settings().cache)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first who asks for the tiny models trains them: a minute's work, or more where others compute."""
    for item in items:
        if "tiny" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(600))
