"""Opinions and topics, on BERTs that learned them."""

from __future__ import annotations

import random
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from transformers import pipeline

from activities.inference_ports import BlockingRunner, LoadedModel, Made
from goatherd.contracts.inference_tasks import LabelScore, Task
from goatherd.errors import Invalid, Unavailable
from tests.activities.hf.text_calls import ODD, ask, item, load, one_by_one, run
from tests.models.text import TOPICS, about, opinion

CLASSIFY, ZERO_SHOT = Task.TEXT_CLASSIFICATION, Task.ZERO_SHOT_CLASSIFICATION


@pytest.fixture(scope="module")
def model(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["sentiment"], CLASSIFY)


@pytest.fixture(scope="module")
def raw(tiny: dict[str, Path]) -> Any:
    return pipeline("text-classification", model=str(tiny["sentiment"]), device="cpu")


@pytest.fixture(scope="module")
def inferring(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["nli"], ZERO_SHOT)


@pytest.fixture(scope="module")
def raw_inferring(tiny: dict[str, Path]) -> Any:
    return pipeline("zero-shot-classification", model=str(tiny["nli"]), device="cpu")


def same(got: list[LabelScore], labels: list[str], scores: list[float]) -> None:
    by_label = {one.label: one.score for one in got}
    assert by_label == pytest.approx(dict(zip(labels, scores, strict=True)), abs=1e-5)
    assert [one.score for one in got] == sorted(by_label.values(), reverse=True)


def test_praise_is_told_from_blame(model: LoadedModel) -> None:
    cases = [opinion(random.Random(n)) for n in range(50)]
    for got, (_, praises) in zip(ask(model, CLASSIFY, *(text for text, _ in cases)), cases, strict=True):
        assert got[0].label == ("POSITIVE" if praises else "NEGATIVE")


@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_is_what_the_pipeline_gives(model: LoadedModel, raw: Any, function: str | None) -> None:
    texts = ["the film was great .", *ODD, "what a dull book !"]
    wish = {"function_to_apply": function} if function else {}
    for got, text in zip(ask(model, CLASSIFY, *texts, **wish), texts, strict=True):
        wanted = raw(text, top_k=None, truncation=True, **wish)
        same(got, [one["label"] for one in wanted], [one["score"] for one in wanted])


def test_a_thousand_texts_are_what_each_is_alone(model: LoadedModel) -> None:
    texts = [opinion(random.Random(n))[0] + " and" * (n % 40) for n in range(1_000)]
    together = ask(model, CLASSIFY, *texts)
    for n in range(0, 1_000, 97):
        (alone,) = ask(model, CLASSIFY, texts[n])
        same(together[n], [one.label for one in alone], [one.score for one in alone])


def test_top_k_is_each_items_own(model: LoadedModel) -> None:
    one, both = run(model, CLASSIFY, [item(CLASSIFY, "great", top_k=1), item(CLASSIFY, "great")])
    assert isinstance(one, Made)
    assert isinstance(both, Made)
    assert one.output == both.output[:1]
    assert one.usage is not None
    assert one.usage.input_tokens >= 3


def test_nan_is_an_error_of_the_item(tiny: dict[str, Path]) -> None:
    model = load(tiny["sentiment"], CLASSIFY)
    runner: Any = model.runner(CLASSIFY)
    words = runner._model.get_input_embeddings().weight
    words[runner._encoder.pieces("dull")[0]] = float("nan")
    bad, good = run(model, CLASSIFY, [item(CLASSIFY, "a dull book"), item(CLASSIFY, "a great book")])
    assert isinstance(bad, Invalid)
    assert "NaN" in bad.message
    assert isinstance(good, Made)


def test_nothing_is_computed_once_cancelled(model: LoadedModel) -> None:
    cancelled = Event()
    cancelled.set()
    (result,) = run(model, CLASSIFY, [item(CLASSIFY, "great")], cancelled)
    assert isinstance(result, Unavailable)


def test_items_that_were_not_weighed_run_as_well(model: LoadedModel) -> None:
    runner = cast(BlockingRunner, model.runner(CLASSIFY))
    (result,) = runner.run([item(CLASSIFY, "great")], Event())
    assert isinstance(result, Made)


def test_topics_are_found_by_inference(inferring: LoadedModel) -> None:
    cases = [about(random.Random(n)) for n in range(40)]
    outputs = ask(inferring, ZERO_SHOT, *(text for text, _ in cases), candidate_labels=list(TOPICS))
    right = sum(got[0].label == topic for got, (_, topic) in zip(outputs, cases, strict=True))
    assert right >= 38


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [["sports", "cooking", "money"], ["money"]])
def test_zero_shot_is_what_the_pipeline_gives(
    inferring: LoadedModel, raw_inferring: Any, multi_label: bool, labels: list[str]
) -> None:
    texts = ["we talked of tennis and goal .", "the oven is near the bread .", *ODD[1:5], "goal " * 500]
    wish = {"candidate_labels": labels, "multi_label": multi_label}
    for got, text in zip(ask(inferring, ZERO_SHOT, *texts, **wish), texts, strict=True):
        wanted = raw_inferring(text, **wish)
        same(got, wanted["labels"], wanted["scores"])


def test_zero_shot_labels_and_templates_are_each_items_own(inferring: LoadedModel) -> None:
    text = "we talked of soup and salt ."
    wishes: list[dict[str, Any]] = [
        {"candidate_labels": "sports, cooking", "hypothesis_template": "this text is about {} ."},
        {"candidate_labels": ["money", "cooking", "sports"]},
    ]
    together = run(inferring, ZERO_SHOT, [item(ZERO_SHOT, text, **wish) for wish in wishes])
    for result, wish in zip(together, wishes, strict=True):
        assert isinstance(result, Made)
        (alone,) = one_by_one(inferring, ZERO_SHOT, text, **wish)
        same(result.output, [one.label for one in alone], [one.score for one in alone])
        assert result.output[0].label == "cooking"


@pytest.mark.parametrize(
    ("wish", "pointer", "code"),
    [
        ({"hypothesis_template": "about nothing"}, "/parameters/hypothesis_template", "invalid"),
        ({"hypothesis_template": "{} " + "long " * 200}, "/parameters/candidate_labels", "too-long"),
    ],
)
def test_a_bad_hypothesis_fails_alone(
    inferring: LoadedModel, wish: dict[str, str], pointer: str, code: str
) -> None:
    bad, good = run(
        inferring,
        ZERO_SHOT,
        [
            item(ZERO_SHOT, "soup", candidate_labels=["money"], **wish),
            item(ZERO_SHOT, "soup", candidate_labels=["money"]),
        ],
    )
    assert isinstance(bad, Invalid)
    assert (bad.pointer, bad.code) == (pointer, code)
    assert isinstance(good, Made)


def test_a_model_that_infers_classifies_too(inferring: LoadedModel) -> None:
    assert list(inferring.tasks) == [ZERO_SHOT, CLASSIFY]
    (got,) = ask(inferring, CLASSIFY, "we talked of soup and salt .")
    assert {one.label for one in got} == {"contradiction", "neutral", "entailment"}
