"""Gaps, on a BERT that learned who lives where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from activities.inference_ports import LoadedModel, Made
from goatherd.contracts.inference_tasks import FilledMask, Task
from goatherd.errors import Invalid
from tests.activities.hf.text_calls import ask, item, load, one_by_one, run
from tests.models.text import CITIES, NAMES

GAPS = [f"{name} lives in [MASK] ." for name in NAMES]


@pytest.fixture(scope="module")
def model(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["mlm"], Task.FILL_MASK)


@pytest.fixture(scope="module")
def raw(tiny: dict[str, Path]) -> Any:
    return pipeline("fill-mask", model=str(tiny["mlm"]), device="cpu")


def same(got: list[FilledMask], wanted: list[dict[str, Any]]) -> None:
    assert [one.token for one in got] == [one["token"] for one in wanted]
    assert [one.token_str for one in got] == [one["token_str"] for one in wanted]
    assert [one.sequence for one in got] == [one["sequence"] for one in wanted]
    assert [one.score for one in got] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def test_fills_gaps_as_it_was_taught(model: LoadedModel) -> None:
    filled = ask(model, Task.FILL_MASK, *GAPS)
    assert [one[0].token_str for one in filled] == [CITIES[n % len(CITIES)] for n in range(len(NAMES))]
    assert all(len(one) == 5 for one in filled)


def test_is_what_the_pipeline_gives(model: LoadedModel, raw: Any) -> None:
    texts = [*GAPS, "the [MASK] was great .", "[MASK]", "a very long one " * 7 + "[MASK] was dull ."]
    for got, text in zip(ask(model, Task.FILL_MASK, *texts), texts, strict=True):
        same(got, raw(text))


def test_a_batch_is_what_each_is_alone(model: LoadedModel) -> None:
    together = ask(model, Task.FILL_MASK, *GAPS)
    alone = one_by_one(model, Task.FILL_MASK, *GAPS)
    for one, other in zip(together, alone, strict=True):
        same(one, [each.model_dump() for each in other])


def test_several_gaps_are_filled_each_by_itself(model: LoadedModel, raw: Any) -> None:
    text = "anna lives in [MASK] . the [MASK] was great ."
    (got,) = ask(model, Task.FILL_MASK, text, top_k=3)
    for one, wanted in zip(got, raw(text, top_k=3), strict=True):
        same(one, wanted)
    assert "[MASK]" in got[0][0].sequence


def test_parameters_are_each_items_own(model: LoadedModel, raw: Any) -> None:
    text = GAPS[0]
    results = run(
        model,
        Task.FILL_MASK,
        [item(Task.FILL_MASK, text, targets=["oslo", "paris"]), item(Task.FILL_MASK, text, top_k=1)],
    )
    first, second = (result.output for result in results if isinstance(result, Made))
    same(first, raw(text, targets=["oslo", "paris"]))
    same(second, raw(text, top_k=1))
    assert [one.token_str for one in first] == ["paris", "oslo"]


def test_top_k_is_at_most_the_vocabulary(model: LoadedModel) -> None:
    (got,) = ask(model, Task.FILL_MASK, GAPS[0], top_k=10_000)
    assert sum(one.score for one in got) == pytest.approx(1)


def test_a_text_without_a_gap_fails_alone(model: LoadedModel) -> None:
    bad, late, good = run(
        model,
        Task.FILL_MASK,
        [item(Task.FILL_MASK, text) for text in ("no gap", "goat " * 200 + "[MASK]", GAPS[0])],
    )
    assert isinstance(bad, Invalid)
    assert (bad.code, bad.pointer) == ("invalid", "/inputs")
    assert isinstance(late, Invalid)
    assert (late.code, late.pointer) == ("too-long", "/inputs")
    assert isinstance(good, Made)
