"""Questions about tables, on a TAPAS of random weights: no package carries real ones, so what is checked is
that the answers are the pipeline's, not that they are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from transformers import TapasConfig, TapasForQuestionAnswering, TapasTokenizer, pipeline

from activities.inference_ports import LoadedModel, Made
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid
from tests.activities.hf.text_calls import ask, item, load, run

TASK = Task.TABLE_QUESTION_ANSWERING
TABLE = {"animal": ["goat", "horse", "sheep"], "legs": ["4", "4", "4"], "age": ["2", "11", "7"]}
QUESTIONS = ["how old is the goat?", "how many legs have all?", "which is the oldest 🐐?", "?"]


@pytest.fixture(scope="module", params=["with aggregation", "without"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tapas")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?.,-"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[EMPTY]",
        *letters,
        *("##" + one for one in letters),
    ]
    (place / "vocab.txt").write_text("\n".join(words))
    TapasTokenizer(str(place / "vocab.txt"), model_max_length=128).save_pretrained(place)
    torch.manual_seed(0)
    more: dict[str, Any] = {}
    if request.param == "with aggregation":
        more = {
            "num_aggregation_labels": 4,
            "aggregation_labels": {0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
            "no_aggregation_label_index": 0,
        }
    config = TapasConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128, initializer_range=0.4, **more,
    )  # fmt: skip
    TapasForQuestionAnswering(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(folder, TASK)


def test_a_batch_is_what_the_pipeline_gives_one_by_one(model: LoadedModel, folder: Path) -> None:
    raw = pipeline("table-question-answering", model=str(folder), device="cpu")
    tables = [TABLE, {"a": ["b"]}, TABLE, {"name": ["anna"] * 9, "": [""] * 9}]
    inputs = [{"query": query, "table": table} for query, table in zip(QUESTIONS, tables, strict=True)]
    for got, one in zip(ask(model, TASK, *inputs), inputs, strict=True):
        wanted = raw(table=pandas.DataFrame(one["table"], dtype=object), query=one["query"])
        assert got.model_dump() == {"aggregator": None, **wanted}
        assert [one["table"][list(one["table"])[column]][row] for row, column in got.coordinates] == got.cells  # type: ignore[index, call-overload]


def test_a_table_that_is_too_long_fails_alone_unless_rows_may_go(model: LoadedModel) -> None:
    long = {"query": "how old?", "table": {"name": ["anna"] * 500}}
    refused, cut, hopeless, good = run(
        model,
        TASK,
        [
            item(TASK, long),
            item(TASK, long, truncation=True),
            item(TASK, {"query": "how old? " * 99, "table": TABLE}, truncation=True),
            item(TASK, {"question": "how old?", "table": TABLE}),
        ],
    )
    assert isinstance(refused, Invalid)
    assert (refused.code, refused.pointer) == ("too-long", "/inputs/table")
    assert isinstance(cut, Made)
    assert isinstance(hopeless, Invalid)
    assert isinstance(good, Made)
