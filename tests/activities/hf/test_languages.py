"""Models that mark languages, and models of one pair, on an NLLB and a Marian of random weights: what is
checked is that they are asked as the library asks them, not that they translate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    NllbTokenizer,
)

from activities.inference_ports import LoadedModel, Made
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid
from tests.activities.hf.text_calls import item, load, run
from tests.models.text import every_text

TASK = Task.TRANSLATION
PAIRS = [("eng_Latn", "fra_Latn"), ("deu_Latn", "fra_Latn"), (None, "arb_Arab"), ("zho_Hans", "deu_Latn")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nllb")
    words = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"goatsee", "▁goat"]
    tokenizer = NllbTokenizer(vocab={word: n for n, word in enumerate(dict.fromkeys(words))}, merges=[])
    tokenizer.save_pretrained(place)
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=len(tokenizer) + 16, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64,
        init_std=0.5,
    )  # fmt: skip
    M2M100ForConditionalGeneration(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(folder, TASK)


def test_languages_are_each_items_own(model: LoadedModel, folder: Path) -> None:
    bare = M2M100ForConditionalGeneration.from_pretrained(folder).eval()
    wishes: list[dict[str, Any]] = [
        {name: code for name, code in (("src_lang", source), ("tgt_lang", target)) if code}
        for source, target in PAIRS
    ]
    results = run(model, TASK, [item(TASK, "goat sees goat", max_new_tokens=6, **wish) for wish in wishes])
    for result, wish in zip(results, wishes, strict=True):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, src_lang=wish.get("src_lang", "eng_Latn"))
        encoded = tokenizer("goat sees goat", return_tensors="pt")
        forced = tokenizer.convert_tokens_to_ids(wish["tgt_lang"])
        with torch.inference_mode():
            made = bare.generate(**encoded, forced_bos_token_id=forced, max_new_tokens=6)
        assert isinstance(result, Made)
        assert result.output.translation_text == tokenizer.decode(made[0], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("wish", "pointer"),
    [
        ({"tgt_lang": "goatish"}, "/parameters/tgt_lang"),
        ({"src_lang": "goatish", "tgt_lang": "fra_Latn"}, "/parameters/src_lang"),
        ({"src_lang": "eng_Latn"}, "/parameters/tgt_lang"),
    ],
)
def test_languages_that_it_has_not_fail_alone(model: LoadedModel, wish: dict[str, str], pointer: str) -> None:
    good_one = item(TASK, "goat", tgt_lang="fra_Latn", max_new_tokens=2)
    bad, good = run(model, TASK, [item(TASK, "goat", **wish), good_one])
    assert isinstance(bad, Invalid)
    assert bad.pointer == pointer
    assert isinstance(good, Made)


# Its punctuation is normalized only where another package is installed: not of interest here.
@pytest.mark.filterwarnings("ignore:Recommended")
def test_a_model_of_one_pair_wants_no_languages(tmp_path: Path) -> None:
    """And its tokenizer is one of those without a Rust side."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(every_text()))
    SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "source"), vocab_size=120, minloglevel=2
    )
    pieces = [piece.split("\t")[0] for piece in (tmp_path / "source.vocab").read_text().splitlines()]
    vocabulary = {piece: n for n, piece in enumerate(dict.fromkeys(["</s>", "<unk>", *pieces, "<pad>"]))}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    shutil.copy(tmp_path / "source.model", tmp_path / "target.model")
    files = [str(tmp_path / name) for name in ("source.model", "target.model", "vocab.json")]
    tokenizer = MarianTokenizer(*files, model_max_length=32)
    assert not tokenizer.is_fast
    folder = tmp_path / "marian"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(vocabulary), d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=32,
        pad_token_id=vocabulary["<pad>"], eos_token_id=0, decoder_start_token_id=vocabulary["<pad>"],
        init_std=0.5,
    )  # fmt: skip
    bare = MarianMTModel(config).eval()
    bare.save_pretrained(folder)
    model = load(folder, TASK)
    texts = ["the red goat sees a horse", "goat " * 100, "🐐 你好"]
    items = [item(TASK, text, max_new_tokens=5) for text in texts]
    *results, refused, long = run(
        model,
        TASK,
        [*items, item(TASK, "goat", tgt_lang="fr"), item(TASK, "goat " * 100, truncation="do_not_truncate")],
    )
    for result, text in zip(results, texts, strict=True):
        encoded = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            made = bare.generate(**encoded, max_new_tokens=5)
        assert isinstance(result, Made)
        assert result.output.translation_text == tokenizer.decode(made[0], skip_special_tokens=True)
    assert isinstance(refused, Invalid)
    assert refused.pointer == "/parameters/tgt_lang"
    assert isinstance(long, Invalid)
    assert long.code == "too-long"
