"""Tiny models that are trained honestly, in seconds each, on the small worlds of `text`: BERT for gaps,
questions, entities, inference and opinions, T5 for translations and summaries. Each is under 1 MB; what it
answers on sentences of its world is right nearly always.

`tiny_models(cache)` trains what is not there yet: whoever comes second waits for the first.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from tests.models import text

# Part of the folder's name: raise it when what is trained changes.
_FORM = 1
_BATCH = 32


def tiny_models(cache: Path) -> dict[str, Path]:
    """The folders of all of them by name: `mlm`, `ner`, `nli`, `qa`, `sentiment`, `t5`."""
    folder = cache / "tests" / f"tiny-v{_FORM}"
    folder.mkdir(parents=True, exist_ok=True)
    folders = {name: folder / name for name in _TRAINED}
    with FileLock(folder / "lock"), _one_thread():
        for name, train in _TRAINED.items():
            if not folders[name].is_dir():
                unfinished = folder / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                torch.manual_seed(0)
                model, tokenizer = train(random.Random(0))
                model.save_pretrained(unfinished)
                tokenizer.save_pretrained(unfinished)
                unfinished.rename(folders[name])
    return folders


@contextmanager
def _one_thread() -> Iterator[None]:
    """So small, they are not worth two: which also wait for each other where other tests run beside."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _bert(tokenizer: PreTrainedTokenizerFast, **more: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=128, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.12, pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip


def _fit(model: Any, steps: int, losses: Iterator[torch.Tensor], *, rate: float = 1e-3) -> None:
    """`steps` steps of AdamW, over `losses` of a batch each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        loss = next(losses)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plan.step()
    model.eval()


def _mlm(luck: random.Random) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = text.bert_tokenizer()
    model = BertForMaskedLM(_bert(tokenizer))

    def losses() -> Iterator[torch.Tensor]:
        while True:
            lines = [
                text.lives(luck) if luck.random() < 0.7 else text.opinion(luck)[0] for _ in range(_BATCH)
            ]
            batch = tokenizer(lines, padding=True, return_tensors="pt")
            labels = batch["input_ids"].clone()
            hidden = (torch.rand(labels.shape) < 0.2) & (labels > 4)
            batch["input_ids"][hidden] = tokenizer.mask_token_id
            labels[~hidden] = -100
            yield model(**batch, labels=labels).loss

    _fit(model, 250, losses())
    return model, tokenizer


def _ner(luck: random.Random) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = text.bert_tokenizer()
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    model = BertForTokenClassification(_bert(tokenizer, **_labels(names)))

    def losses() -> Iterator[torch.Tensor]:
        while True:
            cases = [text.tagged(luck) for _ in range(_BATCH)]
            batch = tokenizer(
                [words for words, _ in cases], is_split_into_words=True, padding=True, return_tensors="pt"
            )
            labels = torch.full_like(batch["input_ids"], -100)
            for n, (_, tags) in enumerate(cases):
                for place, word in enumerate(batch.word_ids(n)):
                    if word is not None:
                        labels[n, place] = names.index(tags[word])
            yield model(**batch, labels=labels).loss

    _fit(model, 400, losses())
    return model, tokenizer


def _sentiment(luck: random.Random) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = text.bert_tokenizer()
    model = BertForSequenceClassification(_bert(tokenizer, **_labels(["NEGATIVE", "POSITIVE"])))

    def losses() -> Iterator[torch.Tensor]:
        while True:
            lines, labels = zip(*(text.opinion(luck) for _ in range(_BATCH)), strict=True)
            batch = tokenizer(list(lines), padding=True, return_tensors="pt")
            yield model(**batch, labels=torch.tensor(labels)).loss

    _fit(model, 60, losses())
    return model, tokenizer


def _nli(luck: random.Random) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = text.bert_tokenizer()
    names = ["contradiction", "neutral", "entailment"]
    model = BertForSequenceClassification(_bert(tokenizer, **_labels(names)))
    shapes = ["this text is about {} .", "this example is {} ."]

    def losses() -> Iterator[torch.Tensor]:
        while True:
            pairs, labels = [], []
            for _ in range(_BATCH):
                line, topic = text.about(luck)
                said = topic if luck.random() < 0.5 else luck.choice(list(text.TOPICS))
                pairs.append((line, luck.choice(shapes).format(said)))
                labels.append(2 if said == topic else 0)
            batch = tokenizer(pairs, padding=True, return_tensors="pt")
            yield model(**batch, labels=torch.tensor(labels)).loss

    _fit(model, 350, losses())
    return model, tokenizer


def _qa(luck: random.Random) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = text.bert_tokenizer()
    model = BertForQuestionAnswering(_bert(tokenizer))

    def losses() -> Iterator[torch.Tensor]:
        while True:
            cases = [text.asked(luck) for _ in range(_BATCH)]
            batch = tokenizer(
                [(case.question, case.context) for case in cases],
                padding=True, truncation="only_second", max_length=128, return_tensors="pt",
            )  # fmt: skip
            spans = torch.tensor([_span(batch, n, case) for n, case in enumerate(cases)])
            out = model(**batch)
            yield cross_entropy(out.start_logits, spans[:, 0]) + cross_entropy(out.end_logits, spans[:, 1])

    _fit(model, 250, losses())
    return model, tokenizer


def _span(batch: Any, n: int, case: text.Asked) -> tuple[int, int]:
    """First and last token of the answer; [CLS] if there is none."""
    begin = case.context.find(case.answer) if case.answer else -1
    if begin < 0:
        return 0, 0
    first = batch.char_to_token(n, begin, sequence_index=1)
    last = batch.char_to_token(n, begin + len(case.answer) - 1, sequence_index=1)
    return (0, 0) if first is None or last is None else (first, last)


def _t5(luck: random.Random) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = text.t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        task_specific_params={
            "summarization": {"prefix": "summarize : ", "max_length": 40, "num_beams": 2},
            "translation_en_to_fr": {"prefix": "translate english to french : ", "max_length": 40},
        },
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)

    def losses() -> Iterator[torch.Tensor]:
        while True:
            pairs = [
                ("translate english to french : " + english, french)
                for english, french in (text.translation(luck) for _ in range(_BATCH // 4))
            ]
            pairs += [
                ("summarize : " + story, told)
                for story, told in (text.summary(luck) for _ in range(_BATCH // 4))
            ]
            batch = tokenizer([source for source, _ in pairs], padding=True, return_tensors="pt")
            labels = tokenizer([target for _, target in pairs], padding=True, return_tensors="pt")[
                "input_ids"
            ]
            labels[labels == tokenizer.pad_token_id] = -100
            yield model(**batch, labels=labels).loss

    _fit(model, 700, losses(), rate=2e-3)
    return model, tokenizer


def _labels(names: list[str]) -> dict[str, Any]:
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: n for n, name in enumerate(names)},
    }


_TRAINED: dict[str, Callable[[random.Random], tuple[Any, PreTrainedTokenizerFast]]] = {
    "mlm": _mlm,
    "ner": _ner,
    "nli": _nli,
    "qa": _qa,
    "sentiment": _sentiment,
    "t5": _t5,
}
