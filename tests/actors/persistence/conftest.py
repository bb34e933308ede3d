"""Each test has an owner of its own, so that nobody reads another's notes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.actors.persistence.account import LISTENERS, NOTES, Faulty


@pytest.fixture
def owner() -> Iterator[str]:
    name = secrets.token_hex(4)
    yield name
    NOTES.pop(name, None)
    LISTENERS.pop(name, None)


@pytest.fixture
def journal() -> Faulty:
    return Faulty()
