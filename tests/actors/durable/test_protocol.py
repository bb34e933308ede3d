from __future__ import annotations

import pytest

from goatherd.actors.durable._protocol import Outcome, Outcomes


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(),
        Outcome(value=False),
        Outcome(value=0),
        Outcome(value={"a": None}),
        Outcome(code="invalid", message="", pointer="/a"),
        Outcome(slow=True),
    ],
)
def test_an_outcome_is_read_as_it_was_written(outcome: Outcome) -> None:
    outcomes = Outcomes(items=[outcome])
    assert Outcomes.model_validate_json(outcomes.model_dump_json()) == outcomes


def test_an_outcome_is_written_without_what_is_as_usual() -> None:
    assert Outcomes(items=[Outcome(value=1)]).model_dump_json() == '{"items":[{"value":1}]}'
