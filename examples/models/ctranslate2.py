"""Reads weights that were written for CTranslate2, and gives Whisper's their names in transformers.

Source of the format: CTranslate2's `specs/model_spec.py`, binary version 6; integers are little-endian. A
text is its length (16 bits, with the zero at its end); a variable is its name, rank (8 bits), dimensions
(32), type (8), length in bytes (32) and data.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_VERSION = 6
_TYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")

Weights = dict[str, NDArray[Any]]


def read(file: Path) -> Weights:
    """All variables of a model file.

    Raises:
        ValueError: it is of another version.
    """
    data = BytesIO(file.read_bytes())

    def number(form: str) -> int:
        (value,) = struct.unpack(form, data.read(struct.calcsize(form)))
        return int(value)

    def text() -> str:
        return data.read(number("<H")).rstrip(b"\0").decode()

    if (version := number("<I")) != _VERSION:
        raise ValueError(f"{file} is of version {version}, not {_VERSION}")
    text()
    number("<I")
    weights: Weights = {}
    for _ in range(number("<I")):
        name = text()
        shape = [number("<I") for _ in range(number("<B"))]
        kind = _TYPES[number("<B")]
        weights[name] = np.frombuffer(data.read(number("<I")), dtype=kind).reshape(shape)
    return weights


def whisper(weights: Weights) -> Weights:
    """The same weights under the names of `WhisperForConditionalGeneration`.

    CTranslate2 keeps the projections that are computed together in one matrix.
    """
    named: Weights = {}
    for side in ("encoder", "decoder"):
        named[f"{side}.embed_positions.weight"] = weights[f"{side}/position_encodings/encodings"]
        named |= _norm(weights, f"{side}/layer_norm", f"{side}.layer_norm")
        layer = 0
        while f"{side}/layer_{layer}/ffn/linear_0/weight" in weights:
            named |= _layer(weights, f"{side}/layer_{layer}", f"{side}.layers.{layer}")
            layer += 1
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            named[f"encoder.{conv}.{part}"] = weights[f"encoder/{conv}/{part}"]
    named["decoder.embed_tokens.weight"] = weights["decoder/embeddings/weight"]
    return {f"model.{name}": value for name, value in named.items()}


def _layer(weights: Weights, there: str, here: str) -> Weights:
    named = _attention(weights, f"{there}/self_attention", f"{here}.self_attn", "qkv", "o")
    named |= _norm(weights, f"{there}/self_attention/layer_norm", f"{here}.self_attn_layer_norm")
    if f"{there}/attention/linear_0/weight" in weights:
        named |= _attention(weights, f"{there}/attention", f"{here}.encoder_attn", "q", "kv", "o")
        named |= _norm(weights, f"{there}/attention/layer_norm", f"{here}.encoder_attn_layer_norm")
    named |= _norm(weights, f"{there}/ffn/layer_norm", f"{here}.final_layer_norm")
    for number, name in enumerate(("fc1", "fc2")):
        for part in ("weight", "bias"):
            named[f"{here}.{name}.{part}"] = weights[f"{there}/ffn/linear_{number}/{part}"]
    return named


def _attention(weights: Weights, there: str, here: str, *joined: str) -> Weights:
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    named: Weights = {}
    for number, letters in enumerate(joined):
        for part in ("weight", "bias"):
            pieces = np.split(weights[f"{there}/linear_{number}/{part}"], len(letters))
            for letter, piece in zip(letters, pieces, strict=True):
                # Keys have no bias in Whisper: it is kept as zeros.
                if (letter, part) != ("k", "bias"):
                    named[f"{here}.{names[letter]}.{part}"] = piece
    return named


def _norm(weights: Weights, there: str, here: str) -> Weights:
    return {f"{here}.weight": weights[f"{there}/gamma"], f"{here}.bias": weights[f"{there}/beta"]}
