"""How large a model's weights are, told by the headers of its safetensors files without reading them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

from goatherd.contracts.inference import ModelSpec

_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_OTHERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


def weights_bytes(folder: Path, spec: ModelSpec) -> int:
    """Bytes of a model's tensors in the dtype that `spec` has them loaded in; 0 if there are no weights."""
    width = _width(spec)
    total = 0
    for file in _files(folder):
        for kind, numbers in _tensors(file):
            stored = _FLOATS.get(kind)
            total += numbers * (_OTHERS.get(kind, 1) if stored is None else width or stored)
    return total


def _width(spec: ModelSpec) -> int | None:
    """Of one number with a point, in bytes; None as it is stored."""
    if spec.dtype != "auto":
        return _WIDTHS[spec.dtype]
    # Heavy, but whoever estimates will load: what `auto` is depends on the machine.
    from activities.backends.hf.loading import choose_device, choose_dtype

    chosen = choose_dtype(spec, choose_device(spec))
    return None if isinstance(chosen, str) else chosen.itemsize


def _files(folder: Path) -> Iterator[Path]:
    """Those that would be loaded: each folder's shards by their index, or its one file, not its variants."""
    for inside in sorted({file.parent for file in folder.rglob("*.safetensors")}):
        files = sorted(inside.glob("*.safetensors"))
        for index in sorted(inside.glob("*.safetensors.index.json")):
            shards = set(json.loads(index.read_text())["weight_map"].values())
            files = [file for file in files if file.name in shards]
            break
        whole = [file for file in files if file.stem in ("model", "diffusion_pytorch_model")]
        yield from whole or files


def _tensors(file: Path) -> Iterator[tuple[str, int]]:
    """The kind of each tensor's numbers, and how many there are.

    Source: the safetensors format: a length of 8 bytes, then so many bytes of JSON.
    """
    with file.open("rb") as data:
        (length,) = struct.unpack("<Q", data.read(8))
        header = json.loads(data.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield tensor["dtype"], prod(tensor["shape"])
