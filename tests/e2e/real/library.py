"""The libraries called directly, one input at a time: what a server's answers are compared with."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
import transformers
from PIL import Image
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

HEARD_AT = 16_000


@cache
def pipeline(task: Any, folder: Path) -> Any:
    return transformers.pipeline(task, model=str(folder), device="cpu", dtype=torch.float32)


@cache
def _pair(auto: Any, folder: Path) -> tuple[Any, Any]:
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


# -- texts


@torch.inference_mode()
def generated(folder: Path, prompt: str | list[dict[str, str]], most: int, **options: Any) -> Talk:
    """A text gone on from, or the reply to a conversation, greedily."""
    tokenizer, model = _pair(AutoModelForCausalLM, folder)
    text = (
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    )
    encoded = tokenizer(text, return_tensors="pt")
    made = model.generate(
        **encoded, max_new_tokens=most, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    before = encoded["input_ids"].shape[1]
    tokens = made.sequences[0, before:]
    likely = [
        float(scores[0].log_softmax(-1)[token]) for scores, token in zip(made.logits, tokens, strict=True)
    ]
    return Talk(tokenizer.decode(tokens, skip_special_tokens=True), before, tokens.tolist(), likely)


class Talk:
    def __init__(self, text: str, prompt_tokens: int, tokens: list[int], logprobs: list[float]) -> None:
        self.text = text
        self.prompt_tokens = prompt_tokens
        self.tokens = tokens
        self.logprobs = logprobs


@torch.inference_mode()
def written(folder: Path, text: str, **options: Any) -> str:
    """By an encoder and a decoder."""
    tokenizer, model = _pair(AutoModelForSeq2SeqLM, folder)
    made = model.generate(**tokenizer(text, return_tensors="pt", truncation=True), **options)
    return str(tokenizer.decode(made[0], skip_special_tokens=True))


@torch.inference_mode()
def hidden(folder: Path, text: str, window: int = 256) -> np.ndarray[Any, Any]:
    """A vector for each token."""
    tokenizer, model = _pair(AutoModel, folder)
    encoded = tokenizer(text, truncation=True, max_length=window, return_tensors="pt")
    vectors: np.ndarray[Any, Any] = model(**encoded).last_hidden_state[0].numpy()
    return vectors


def vector(folder: Path, text: str) -> np.ndarray[Any, Any]:
    """As MiniLM was trained: the mean of its tokens' vectors, of length 1."""
    mean = hidden(folder, text).mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


@torch.inference_mode()
def answer(folder: Path, question: str, context: str, *, longest: int = 15) -> dict[str, Any]:
    """The likeliest span of all windows, scored within its window."""
    tokenizer, model = _pair(AutoModelForQuestionAnswering, folder)
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=tokenizer.model_max_length,
        stride=48,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    best: dict[str, Any] = {"score": -1.0}
    for window in range(len(encoded["input_ids"])):
        inputs = {name: torch.tensor(encoded[name][window])[None] for name in tokenizer.model_input_names}
        output = model(**inputs)
        inside = torch.tensor([of == 1 for of in encoded.sequence_ids(window)])
        open_ = inside | (inputs["input_ids"][0] == tokenizer.cls_token_id)
        begin, end = (
            logits[0].masked_fill(~open_, -torch.inf).softmax(-1) * inside
            for logits in (output.start_logits, output.end_logits)
        )
        scores = (begin[:, None] * end[None, :]).triu().tril(longest - 1)
        first, last = divmod(int(scores.argmax()), len(inside))
        if float(scores.max()) > best["score"]:
            offsets = encoded["offset_mapping"][window]
            start, stop = offsets[first][0], offsets[last][1]
            best = {
                "answer": context[start:stop],
                "score": float(scores.max()),
                "start": start,
                "end": stop,
            }
    return best


# -- images and sounds


def image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def samples(data: bytes, rate: int | None = None) -> tuple[np.ndarray[Any, Any], int]:
    """A file's sound, and how many samples a second it has."""
    read, own = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate is None or rate == own:
        return read, own
    return soxr.resample(read, own, rate), rate


@cache
def _diffusion(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    untyped: Any = DiffusionPipeline
    pipe = untyped.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(folder: Path, text: str, seed: int, **options: Any) -> Image.Image:
    made = _diffusion(folder)(text, generator=torch.Generator().manual_seed(seed), **options)
    drawing: Image.Image = made.images[0]
    return drawing


def spoken(folder: Path, text: str, seed: int) -> np.ndarray[Any, Any]:
    """By VITS."""
    pipe = pipeline("text-to-audio", folder)
    torch.manual_seed(seed)
    return np.asarray(pipe(text)["audio"]).reshape(-1)


def said(voice: Path, sentences: Sequence[Sequence[int]], seed: int) -> np.ndarray[Any, Any]:
    """By a Piper voice in onnxruntime, of the numbers of phonemes; as loud as it goes."""
    import onnxruntime

    onnxruntime.set_seed(seed)
    session = onnxruntime.InferenceSession(str(voice), providers=["CPUExecutionProvider"])
    parts = []
    for numbers in sentences:
        inputs = {
            "input": np.array([numbers], dtype=np.int64),
            "input_lengths": np.array([len(numbers)], dtype=np.int64),
            "scales": np.array([0.667, 1.0, 0.8], dtype=np.float32),
        }
        parts.append(session.run(None, inputs)[0].reshape(-1))
    whole = np.concatenate(parts)
    return np.asarray(whole / np.abs(whole).max())


# -- TensorFlow Lite


def package_file(package: str, name: str) -> Path:
    found = find_spec(package)
    assert found is not None
    assert found.submodule_search_locations
    (file,) = Path(found.submodule_search_locations[0]).rglob(name)
    return file


def tensors(file: Path, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """By the graph's first signature."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    (name, *_) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(name)
    return dict(runner(**inputs))


def face(file: Path, picture: Image.Image) -> tuple[float, tuple[float, float, float, float]]:
    """The likeliest face of a square picture by the short-range BlazeFace: its score, and its box (left, top,
    right, bottom) in parts of the picture."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    small = np.asarray(picture.resize((128, 128), Image.Resampling.BILINEAR), dtype=np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (small / 127.5 - 1)[None])
    interpreter.invoke()
    given = [interpreter.get_tensor(one["index"])[0] for one in interpreter.get_output_details()]
    logits, boxes = sorted(given, key=lambda one: one.shape[1])
    best = int(logits.argmax())
    # 16 x 16 cells of two anchors, then 8 x 8 of six.
    side, cell = (16, best // 2) if best < 512 else (8, (best - 512) // 6)
    x, y, width, height = boxes[best, :4] / 128
    x, y = x + (cell % side + 0.5) / side, y + (cell // side + 0.5) / side
    score = float(1 / (1 + np.exp(-logits[best, 0])))
    return score, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
