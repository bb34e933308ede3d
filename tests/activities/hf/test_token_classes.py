"""Entities, on a BERT that learned names of persons and places, some of two words."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from activities.inference_ports import LoadedModel, Made
from examples.models.demo import prepare
from goatherd.contracts.inference_tasks import Task, TokenClass
from goatherd.errors import Invalid
from goatherd.settings import Settings
from tests.activities.hf.text_calls import ODD, ask, item, load, run
from tests.models.text import tagged

TASK = Task.TOKEN_CLASSIFICATION
TEXTS = [" ".join(tagged(random.Random(n))[0]) for n in range(12)]
STRATEGIES = ["none", "simple", "first", "average", "max"]


@pytest.fixture(scope="module")
def model(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["ner"], TASK)


@pytest.fixture(scope="module")
def raw(tiny: dict[str, Path]) -> Any:
    return pipeline("token-classification", model=str(tiny["ner"]), device="cpu")


def same(got: list[TokenClass], wanted: list[dict[str, Any]]) -> None:
    plain = [one.model_dump(exclude_none=True, exclude={"score"}) for one in got]
    assert plain == [{key: one[key] for key in one if key != "score"} for one in wanted]
    assert [one.score for one in got] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def test_finds_names_as_it_was_taught(model: LoadedModel) -> None:
    text = "people walked home on the anna lisbon slowly and yesterday it rained on berlin slowly ."
    (got,) = ask(model, TASK, "yesterday it rained on oslo slowly . people walked greta boris home .")
    assert ("oslo", "LOC") in [(one.word, one.entity_group) for one in got], text
    assert any(one.entity_group == "PER" for one in got)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_is_what_the_pipeline_gives_one_by_one(model: LoadedModel, raw: Any, strategy: str) -> None:
    texts = [*TEXTS, *ODD]
    outputs = ask(model, TASK, *texts, aggregation_strategy=strategy, ignore_labels=[])
    for got, text in zip(outputs, texts, strict=True):
        same(got, raw(text, aggregation_strategy=strategy, ignore_labels=[]))


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_long_texts_are_read_in_windows(model: LoadedModel, raw: Any, strategy: str) -> None:
    texts = [" ".join(TEXTS * 3), TEXTS[0], " ".join(TEXTS[::-1] * 2)]
    outputs = ask(model, TASK, *texts, aggregation_strategy=strategy, stride=20)
    for got, text in zip(outputs, texts, strict=True):
        same(got, raw(text, aggregation_strategy=strategy, stride=20))
    assert max(one.start for one in outputs[0]) > 0.9 * len(texts[0])


def test_parameters_are_each_items_own(model: LoadedModel, raw: Any) -> None:
    wishes: list[dict[str, Any]] = [
        {"aggregation_strategy": "none"},
        {"ignore_labels": ["PER", "O"]},
        {"aggregation_strategy": "max", "stride": 8},
    ]
    results = run(model, TASK, [item(TASK, TEXTS[1], **wish) for wish in wishes])
    for result, wish in zip(results, wishes, strict=True):
        assert isinstance(result, Made)
        same(result.output, raw(TEXTS[1], **{"aggregation_strategy": "simple", **wish}))


@pytest.mark.parametrize("wish", [{"stride": 4, "aggregation_strategy": "none"}, {"stride": 500}])
def test_windows_that_cannot_be_fail_alone(model: LoadedModel, wish: dict[str, Any]) -> None:
    bad, good = run(model, TASK, [item(TASK, TEXTS[0], **wish), item(TASK, TEXTS[0])])
    assert isinstance(bad, Invalid)
    assert bad.pointer == "/parameters/stride"
    assert isinstance(good, Made)


@pytest.mark.model
def test_a_real_tagger_finds_mistakes_and_is_what_the_pipeline_gives() -> None:
    source = prepare("quire-grammar", Settings().cache / "demo").source
    tagger = load(source, TASK)
    texts = ["She have two dogs.", "Their is a goat on the hill, and it is white."]
    wish: dict[str, Any] = {"aggregation_strategy": "none", "ignore_labels": ["$KEEP"]}
    verb, place = ask(tagger, TASK, *texts, **wish)
    assert [(one.word, one.entity) for one in verb][:1] == [("have", "$REPLACE_has")]
    assert place[0].word.lower() == "their"
    raw = pipeline("token-classification", model=source, device="cpu")
    same(verb, raw(texts[0], **wish))
    same(place, raw(texts[1], **wish))
