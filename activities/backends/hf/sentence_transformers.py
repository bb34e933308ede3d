"""How a model's own files say that vectors are made of its tokens: those that sentence-transformers writes.

Source of the files' form: sentence-transformers 2 to 5: `modules.json`, the folders that it names, and
`config_sentence_transformers.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

Pooling = Literal["mean", "cls", "max", "last", "mean_sqrt_len", "weightedmean"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
# By the name of the class of torch that the files have in full.
_ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    name: getattr(torch.nn, name) for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
}
_SIMILARITIES: dict[str, Similarity] = {
    "cosine": "cosine",
    "dot": "dot",
    "dot_score": "dot",
    "euclidean": "euclidean",
    "manhattan": "manhattan",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to a text before the model, and to its tokens' vectors after."""

    poolings: tuple[Pooling, ...] = ("mean",)
    """One vector each, one behind the other."""
    prompt_counts: bool = True
    """Whether the prompt's tokens are pooled too."""
    after: torch.nn.Module = field(default_factory=torch.nn.Identity)
    """Layers that the pooled vector goes through."""
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"
    max_seq_length: int | None = None
    lower: bool = False


def read_recipe(folder: Path) -> Recipe:
    """Of a folder without such files: the mean of the tokens' vectors.

    Raises:
        ValueError: a part that we do not know; without it the vectors would be others.
    """
    own = _read(folder / "config_sentence_transformers.json")
    modules = _read(folder / "modules.json") or []
    poolings: tuple[Pooling, ...] = ("mean",)
    prompt_counts = True
    layers: list[torch.nn.Module] = []
    normalize = False
    begin = folder
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        inside = folder / module["path"]
        if kind == "Transformer":
            begin = inside
        elif kind == "Pooling":
            config = _read(inside / "config.json")
            poolings, prompt_counts = _poolings(config), config.get("include_prompt", True)
        elif kind == "Dense":
            layers.append(_dense(inside))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            raise ValueError(f"its modules.json asks for {module['type']}, which is not supported")
    if begin != folder:
        raise ValueError(f"its transformer is in {begin.name}, not in the folder itself")
    sizes = _read(folder / "sentence_bert_config.json")
    prompts = {str(name): str(prompt) for name, prompt in (own.get("prompts") or {}).items()}
    return Recipe(
        poolings=poolings,
        prompt_counts=bool(prompt_counts),
        after=torch.nn.Sequential(*layers) if layers else torch.nn.Identity(),
        normalize=normalize,
        prompts=prompts,
        default_prompt=own.get("default_prompt_name"),
        similarity=_SIMILARITIES.get(own.get("similarity_fn_name") or "cosine", "cosine"),
        max_seq_length=sizes.get("max_seq_length"),
        lower=bool(sizes.get("do_lower_case", False)),
    )


def pool(pooling: Pooling, vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One vector a row.

    Args:
        vectors: [rows, tokens, dimensions], float32.
        mask: [rows, tokens], 1 for tokens that count; each row has one at least.
    """
    weights = mask.to(vectors.dtype)[..., None]
    match pooling:
        case "mean":
            return (vectors * weights).sum(1) / weights.sum(1)
        case "mean_sqrt_len":
            return (vectors * weights).sum(1) / weights.sum(1).sqrt()
        case "weightedmean":
            weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)[None, :, None]
            return (vectors * weights).sum(1) / weights.sum(1)
        case "max":
            return vectors.masked_fill(weights == 0, -torch.inf).amax(1)
        case "cls":
            return _at(vectors, mask.int().argmax(1))
        case "last":
            return _at(vectors, mask.shape[1] - 1 - mask.int().flip(1).argmax(1))


def _at(vectors: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return vectors[torch.arange(len(vectors), device=vectors.device), places]


def _poolings(config: dict[str, Any]) -> tuple[Pooling, ...]:
    """In the order that sentence-transformers puts their vectors in."""
    named = config.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        known: dict[str, Pooling] = {"lasttoken": "last"}
        known.update((pooling, pooling) for pooling in _POOLINGS.values())
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"its pooling {unknown[0]!r} is not supported")
        return tuple(known[name] for name in names)
    return tuple(pooling for key, pooling in _POOLINGS.items() if config.get(key)) or ("mean",)


def _dense(folder: Path) -> torch.nn.Module:
    config = _read(folder / "config.json")
    name = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise ValueError(f"its activation {name!r} is not supported")
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = load_file(folder / "model.safetensors")
    linear.load_state_dict({key.removeprefix("linear."): tensor.float() for key, tensor in weights.items()})
    return torch.nn.Sequential(linear, _ACTIVATIONS[name]())


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
