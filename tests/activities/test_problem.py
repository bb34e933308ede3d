"""How an item's error crosses to whoever asked."""

from __future__ import annotations

import pytest

from activities.inference_items import problem
from api.errors import error_headers
from api.outcomes import error_of
from goatherd.errors import TooManyRequests, Unavailable


@pytest.mark.parametrize("kind", [TooManyRequests, Unavailable])
def test_when_to_come_back_is_told_to_the_end(kind: type[TooManyRequests | Unavailable]) -> None:
    error = error_of(problem(kind("enough for now", retry_after_s=7.0)))
    assert type(error) is kind
    assert error_headers(error)["retry-after"] == "7"
