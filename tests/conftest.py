"""What all tests share."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

# The same examples in each run, so that no change is refused for the luck of the draw.
settings.register_profile("same", derandomize=True, print_blob=True)
settings.register_profile("fuzz", derandomize=False, print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="module")
def _light_collections() -> None:
    """What earlier modules of this process left (model libraries, millions of objects) is not looked through
    again and again: one look takes longer than Temporal gives a workflow to yield."""
    gc.collect()
    gc.freeze()
