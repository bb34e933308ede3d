"""What all tests share."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _light_collections() -> None:
    """What earlier modules of this process left (model libraries, millions of objects) is not looked through
    again and again: one look takes longer than Temporal gives a workflow to yield."""
    gc.collect()
    gc.freeze()
