"""Text in, text out, on a T5 that learned to translate word for word and to name a story's animals."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from activities.inference_ports import LoadedModel, Made
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid, Unavailable
from tests.activities.hf.text_calls import ODD, ask, item, load, one_by_one, run
from tests.models.text import summary, translation

TRANSLATE, SUMMARIZE, WRITE = Task.TRANSLATION, Task.SUMMARIZATION, Task.TEXT2TEXT_GENERATION
STORIES = [summary(random.Random(700 + n)) for n in range(16)]
SENTENCES = [translation(random.Random(700 + n)) for n in range(16)]
PREFIX = "translate english to french : "


@pytest.fixture(scope="module")
def model(tiny: dict[str, Path]) -> LoadedModel:
    return load(tiny["t5"], WRITE)


@pytest.fixture(scope="module")
def raw(tiny: dict[str, Path]) -> Any:
    """`generate` called directly, for one text."""
    tokenizer = AutoTokenizer.from_pretrained(tiny["t5"])
    bare = AutoModelForSeq2SeqLM.from_pretrained(tiny["t5"]).eval()

    def generate(text: str, **options: Any) -> str:
        encoded = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            return str(tokenizer.decode(bare.generate(**encoded, **options)[0], skip_special_tokens=True))

    return generate


def test_translates_and_summarizes_as_it_was_taught(model: LoadedModel) -> None:
    translated = ask(model, TRANSLATE, *(english for english, _ in SENTENCES), src_lang="en", tgt_lang="fr")
    right = sum(
        got.translation_text == wanted for got, (_, wanted) in zip(translated, SENTENCES, strict=True)
    )
    assert right >= 12
    told = ask(model, SUMMARIZE, *(story for story, _ in STORIES))
    assert sum(got.summary_text == wanted for got, (_, wanted) in zip(told, STORIES, strict=True)) >= 12


def test_a_batch_is_what_the_library_gives_one_by_one(model: LoadedModel, raw: Any) -> None:
    texts = [english for english, _ in SENTENCES]
    for got, text in zip(ask(model, TRANSLATE, *texts), texts, strict=True):
        assert got.translation_text == raw(PREFIX + text, max_length=40)
    stories = [story for story, _ in STORIES]
    for got, story in zip(ask(model, SUMMARIZE, *stories), stories, strict=True):
        assert got.summary_text == raw("summarize : " + story, max_length=40, num_beams=2)
    written = ask(model, WRITE, *(PREFIX + text for text in texts), max_new_tokens=4)
    for got, text in zip(written, texts, strict=True):
        assert got.generated_text == raw(PREFIX + text, max_new_tokens=4)


def test_parameters_are_each_items_own(model: LoadedModel, raw: Any) -> None:
    text = PREFIX + SENTENCES[0][0]
    wishes: list[dict[str, Any]] = [
        {"max_new_tokens": 2},
        {"num_beams": 3, "max_new_tokens": 12, "length_penalty": 2.0},
        {"max_length": 6, "repetition_penalty": 2.0},
        {"min_new_tokens": 20, "max_new_tokens": 24, "no_repeat_ngram_size": 2},
    ]
    results = run(model, WRITE, [item(WRITE, text, **wish) for wish in wishes])
    for result, wish in zip(results, wishes, strict=True):
        assert isinstance(result, Made)
        assert result.output.generated_text == raw(text, **wish)
    nested = {"generate_parameters": {"max_new_tokens": 9, "num_beams": 3}, "max_new_tokens": 2}
    (got,) = ask(model, WRITE, text, **nested)
    assert got.generated_text == raw(text, max_new_tokens=2, num_beams=3)


def test_ends_and_counts_are_told(model: LoadedModel) -> None:
    whole, cut = run(
        model,
        TRANSLATE,
        [item(TRANSLATE, SENTENCES[0][0]), item(TRANSLATE, SENTENCES[0][0], max_new_tokens=2)],
    )
    assert isinstance(whole, Made)
    assert isinstance(cut, Made)
    assert whole.finish is not None
    assert cut.finish is not None
    assert (whole.finish.reason, cut.finish.reason) == ("stop", "length")
    assert cut.usage is not None
    assert cut.usage.output_tokens == 2
    assert whole.usage is not None
    assert whole.usage.input_tokens == cut.usage.input_tokens > 10


def test_a_seed_decides_whatever_else_is_drawn_beside(model: LoadedModel) -> None:
    hot = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 12}
    text = STORIES[0][0]
    (alone,) = ask(model, WRITE, text, seed=7, **hot)
    beside = [item(WRITE, text * 2, seed=n, **hot) for n in range(5)]
    *_, together = run(model, WRITE, [*beside, item(WRITE, text, seed=7, **hot)])
    assert isinstance(together, Made)
    assert together.output == alone
    drawn = {ask(model, WRITE, text, seed=n, **hot)[0].generated_text for n in range(8)}
    assert len(drawn) > 4
    (one,) = ask(model, WRITE, text, seed=1, do_sample=True, top_k=1)
    (greedy,) = ask(model, WRITE, text)
    assert one == greedy


def test_draws_follow_the_probabilities(model: LoadedModel, tiny: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny["t5"])
    bare = AutoModelForSeq2SeqLM.from_pretrained(tiny["t5"]).eval()
    text = STORIES[1][0]
    encoded = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        logits = bare(
            **encoded, decoder_input_ids=torch.tensor([[bare.config.decoder_start_token_id]])
        ).logits
    wanted = (logits[0, -1] / 2).softmax(-1)
    draws = [
        item(WRITE, text, seed=n, do_sample=True, temperature=2.0, top_k=0, max_new_tokens=1)
        for n in range(600)
    ]
    counts: dict[str, int] = {}
    for result in run(model, WRITE, draws):
        assert isinstance(result, Made)
        counts[result.output.generated_text] = counts.get(result.output.generated_text, 0) + 1
    likely = int(wanted.argmax())
    seen = counts.get(tokenizer.decode([likely], skip_special_tokens=True), 0) / len(draws)
    assert seen == pytest.approx(float(wanted[likely]), abs=0.08)


def test_odd_texts_come_out_as_each_does_alone(model: LoadedModel) -> None:
    wish = {"max_new_tokens": 5}
    assert ask(model, WRITE, *ODD, **wish) == one_by_one(model, WRITE, *ODD, **wish)


@pytest.mark.parametrize(
    ("task", "wish", "pointer", "code"),
    [
        (WRITE, {"truncation": "do_not_truncate"}, "/inputs", "too-long"),
        (WRITE, {"truncation": "only_second"}, "/parameters/truncation", "invalid"),
        (WRITE, {"do_sample": True, "num_beams": 2}, "/parameters/num_beams", "invalid"),
        (WRITE, {"min_new_tokens": 9, "max_new_tokens": 3}, "/parameters/min_new_tokens", "invalid"),
        (TRANSLATE, {"src_lang": "en", "tgt_lang": "de"}, "/parameters/tgt_lang", "invalid"),
    ],
)
def test_what_cannot_be_done_fails_alone(
    model: LoadedModel, task: Task, wish: dict[str, Any], pointer: str, code: str
) -> None:
    bad, good = run(model, task, [item(task, "goat " * 300, **wish), item(task, "goat", max_new_tokens=3)])
    assert isinstance(bad, Invalid)
    assert (bad.pointer, bad.code) == (pointer, code)
    assert isinstance(good, Made)


def test_nan_is_an_error_of_the_item(tiny: dict[str, Path]) -> None:
    model = load(tiny["t5"], WRITE)
    runner: Any = model.runner(WRITE)
    broken = runner._encoder.pieces("donkey")[0]

    def break_it(_: Any, read: tuple[torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
        return vectors.masked_fill((read[0] == broken)[..., None], torch.nan)

    runner._model.encoder.get_input_embeddings().register_forward_hook(break_it)
    bad, good = run(model, WRITE, [item(WRITE, "donkey"), item(WRITE, "oslo", max_new_tokens=2)])
    assert isinstance(bad, Invalid)
    assert "NaN" in bad.message
    assert isinstance(good, Made)


def test_generation_stops_once_nobody_waits(model: LoadedModel) -> None:
    class AfterOneStep(Event):
        """Set when it is looked at for the third time: before the batch, then by the first step."""

        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 2

    cancelled = AfterOneStep()
    (result,) = run(
        model, WRITE, [item(WRITE, "goat", min_new_tokens=4_000, max_new_tokens=5_000)], cancelled
    )
    assert isinstance(result, Unavailable)
    assert cancelled.looks < 10


def test_which_languages_has_to_be_said_if_there_are_several(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny["t5"], folder)
    config = json.loads((folder / "config.json").read_text())
    specific = config["task_specific_params"]
    specific["translation_en_to_de"] = {"prefix": "translate english to german : ", "max_length": 40}
    (folder / "config.json").write_text(json.dumps(config))
    model = load(folder, TRANSLATE)
    assert list(model.tasks) == [TRANSLATE, WRITE]
    text = SENTENCES[0][0]
    unsaid, said, itself = run(
        model,
        TRANSLATE,
        [item(TRANSLATE, text), item(TRANSLATE, text, tgt_lang="fr"), item(TRANSLATE, PREFIX + text)],
    )
    assert isinstance(unsaid, Invalid)
    assert unsaid.pointer == "/parameters/tgt_lang"
    assert isinstance(said, Made)
    assert isinstance(itself, Made)
    assert said.output == itself.output
