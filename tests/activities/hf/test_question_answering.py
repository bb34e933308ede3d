"""Questions, on a BERT that learned who lives where and has which animal, and that not every context says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from activities.inference_ports import LoadedModel, Made
from goatherd.contracts.inference_tasks import Answer, Task
from goatherd.errors import Invalid
from tests.activities.hf.text_calls import ODD, ask, item, load, one_by_one, run
from tests.models.text import FILLER, asked

TASK = Task.QUESTION_ANSWERING
CASES = [asked(random.Random(1_000 + n)) for n in range(80)]


@pytest.fixture(scope="module")
def model(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["qa"], TASK)


def inputs(question: str, context: str) -> dict[str, str]:
    return {"question": question, "context": context}


def long_context(before: int, said: str, after: int) -> str:
    luck = random.Random(before)
    return " ".join([*luck.choices(FILLER, k=before), ".", said, *luck.choices(FILLER, k=after), "."])


def same(got: Answer, wanted: Answer) -> None:
    assert (got.answer, got.start, got.end) == (wanted.answer, wanted.start, wanted.end)
    assert got.score == pytest.approx(wanted.score, abs=1e-5)


def test_answers_are_right_and_where_they_say(model: LoadedModel) -> None:
    outputs = ask(
        model,
        TASK,
        *(inputs(case.question, case.context) for case in CASES),
        handle_impossible_answer=True,
    )
    right = sum(got[0].answer == case.answer for got, case in zip(outputs, CASES, strict=True))
    assert right >= 76
    for (got,), case in zip(outputs, CASES, strict=True):
        assert case.context[got.start : got.end] == got.answer


def test_is_what_the_model_says_decoded_by_hand(model: LoadedModel, tiny: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny["qa"])
    bare = AutoModelForQuestionAnswering.from_pretrained(tiny["qa"]).eval()
    outputs = ask(
        model, TASK, *(inputs(case.question, case.context) for case in CASES[:20]), align_to_words=False
    )
    for (got,), case in zip(outputs, CASES[:20], strict=True):
        encoded = tokenizer(
            case.question, case.context, return_tensors="pt", return_offsets_mapping=True, truncation=True
        )
        offsets = encoded.pop("offset_mapping")[0].tolist()
        with torch.inference_mode():
            output = bare(**encoded)
        of = encoded.sequence_ids(0)
        shut = torch.tensor([one != 1 and n != 0 for n, one in enumerate(of)])
        begin = output.start_logits[0].masked_fill(shut, -torch.inf).softmax(-1)
        end = output.end_logits[0].masked_fill(shut, -torch.inf).softmax(-1)
        scores = (begin[:, None] * end[None, :]).triu().tril(14)
        scores[0] = 0
        first, last = divmod(int(scores.argmax()), len(of))
        assert (got.start, got.end) == (offsets[first][0], offsets[last][1])
        assert got.score == pytest.approx(float(scores.max()), abs=1e-5)


def test_a_batch_is_what_each_is_alone(model: LoadedModel) -> None:
    some = [inputs(case.question, case.context) for case in CASES[:20]]
    some += [inputs("where does anna live ?", text) for text in ODD[1:]]
    some += [inputs(text, "anna lives in paris .") for text in ODD]
    for one, other in zip(ask(model, TASK, *some), one_by_one(model, TASK, *some), strict=True):
        same(one[0], other[0])


@pytest.mark.parametrize("before", [5, 97, 400, 3_000])
def test_answers_are_found_wherever_they_are_in_a_long_context(model: LoadedModel, before: int) -> None:
    context = long_context(before, "felix lives in dublin .", 500)
    ((got,),) = ask(model, TASK, inputs("where does felix live ?", context))
    assert got.answer == "dublin"
    assert context[got.start : got.end] == "dublin"


def test_a_span_of_two_windows_is_one_answer(model: LoadedModel) -> None:
    context = long_context(60, "felix lives in dublin .", 60)
    (got,) = ask(
        model, TASK, inputs("where does felix live ?", context), top_k=5, doc_stride=60, max_seq_len=90
    )
    places = [(one.start, one.end) for one in got]
    assert len(set(places)) == len(places) == 5
    assert [one.score for one in got] == sorted((one.score for one in got), reverse=True)
    assert got[0].answer == "dublin"


def test_no_answer_may_be_the_answer(model: LoadedModel) -> None:
    asked_in_vain = inputs("where does anna live ?", "anna has a red goat . people walked slowly .")
    ((forced,),) = ask(model, TASK, asked_in_vain)
    ((free,),) = ask(model, TASK, asked_in_vain, handle_impossible_answer=True)
    assert forced.answer
    assert forced.score < 0.5
    assert (free.answer, free.start, free.end) == ("", 0, 0)
    assert free.score > 0.5


def test_answers_are_whole_words_unless_asked_otherwise(model: LoadedModel) -> None:
    context = "yesterday it rained . anna lives in unheardofville . people walked home slowly ."
    wish = {"max_answer_len": 1, "top_k": 200}
    (whole,) = ask(model, TASK, inputs("where does anna live ?", context), **wish)
    (pieces,) = ask(model, TASK, inputs("where does anna live ?", context), align_to_words=False, **wish)
    assert "unheardofville" in [one.answer for one in whole]
    assert "unheardofville" not in [one.answer for one in pieces]
    assert all(one.answer in [*context.split()] for one in whole)


@pytest.mark.parametrize(
    ("question", "context", "wish", "pointer"),
    [
        ("where ?", "anna", {"max_seq_len": 129}, "/parameters/max_seq_len"),
        ("where ?", "anna", {"doc_stride": 126}, "/parameters/doc_stride"),
        ("where " * 200, "anna", {"max_question_len": 125}, "/inputs/question"),
        ("where ?", "   ", {}, "/inputs/context"),
    ],
)
def test_what_cannot_be_read_fails_alone(
    model: LoadedModel, question: str, context: str, wish: dict[str, Any], pointer: str
) -> None:
    good_one = item(TASK, inputs(CASES[0].question, CASES[0].context))
    bad, good = run(model, TASK, [item(TASK, inputs(question, context), **wish), good_one])
    assert isinstance(bad, Invalid)
    assert bad.pointer == pointer
    assert isinstance(good, Made)


def test_long_questions_are_cut(model: LoadedModel) -> None:
    case = next(case for case in CASES if case.answer)
    question = case.question + " slowly" * 500
    ((got,),) = ask(model, TASK, inputs(question, case.context), max_question_len=5)
    ((wanted,),) = ask(model, TASK, inputs(case.question, case.context))
    same(got, wanted)
