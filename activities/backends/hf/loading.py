"""What all families of models share when they load: device, dtype, threads, memory, and what comes of it."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModel
from transformers.utils import logging

from activities.inference_ports import LoadContext, Runner
from activities.ports import ChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Unavailable, WrongTask

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def set_up(context: LoadContext) -> None:
    """What torch and transformers are told once, for the whole process."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if context.threads and torch.get_num_threads() != context.threads:
        torch.set_num_threads(context.threads)


def choose_device(spec: ModelSpec) -> torch.device:
    if spec.device != "auto":
        return torch.device(spec.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype | str:
    """The dtype to compute in, as `from_pretrained` takes it.

    `auto` on a GPU is what the weights are kept in. On a CPU it is float32: most models answer with numbers,
    and those of bfloat16 are wrong in the third digit. Models that talk take bfloat16 where the CPU computes
    in it: with SmolLM2-135M on two cores with AVX512-BF16 it decodes 1.3 times and prefills twice as fast.
    """
    if spec.dtype != "auto":
        return _DTYPES[spec.dtype]
    if device.type != "cpu":
        return "auto"
    able = torch.cpu.get_capabilities()
    talks = spec.task in (Task.CONVERSATIONAL, Task.TEXT_GENERATION)
    return torch.bfloat16 if talks and (able.get("avx512_bf16") or able.get("amx_bf16")) else torch.float32


def pretrained(auto: Any, spec: ModelSpec, folder: Any, **options: Any) -> Any:
    """The model of a folder by one of transformers' Auto classes, where it will compute, for inference only.

    Raises:
        OSError, ValueError: the folder has no such model, or not all of its weights.
        Unavailable: there is not enough memory.
    """
    device = choose_device(spec)
    with memory_errors_translated():
        model, found = auto.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=choose_dtype(spec, device),
            output_loading_info=True,
            **options,
        )
        _check_whole(auto, found["missing_keys"])
        return model.to(device).eval().requires_grad_(False)


_FOR_TRAINING = re.compile(r"(^|\.)(masked_spec_embed|num_batches_tracked|position_ids)$")
"""What weights of this name are, no answer depends on."""
_POOLER = re.compile(r"(^|\.)pooler\.")


def _check_whole(auto: Any, missing: Iterable[str]) -> None:
    """transformers makes up at random what the files lack: mostly the head of another task than theirs.

    Raises:
        ValueError: there is such, and answers depend on it.
    """
    needed = sorted(name for name in missing if not _FOR_TRAINING.search(name))
    if auto is AutoModel:  # What is asked for there is what comes before the pooler.
        needed = [name for name in needed if not _POOLER.search(name)]
    if needed:
        named = ", ".join(needed[:5]) + (f" and {len(needed) - 5} more" if len(needed) > 5 else "")
        raise ValueError(f"its files lack weights that this task needs: {named}")


@contextmanager
def memory_errors_translated() -> Iterator[None]:
    """Makes `Unavailable` (`out-of-memory`) of a lack of memory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError.
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        raise Unavailable("not enough memory for the model", code="out-of-memory", retry_after_s=5) from error


def memory_of(*modules: torch.nn.Module) -> int:
    """Bytes of the modules' weights, those that are shared counted once."""
    tensors = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensors.values())


class Loaded:
    """A model that has runners. See `LoadedModel`."""

    def __init__(
        self, memory_bytes: int, runners: Mapping[Task, Runner], *, chat: ChatModel | None = None
    ) -> None:
        self._memory_bytes = memory_bytes
        self._runners = dict(runners)
        self._chat = chat

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    @property
    def tasks(self) -> Sequence[Task]:
        return list(self._runners)

    def runner(self, task: Task) -> Runner:
        try:
            return self._runners[task]
        except KeyError:
            raise WrongTask(f"the model is for {', '.join(self._runners)}, not for {task}") from None

    @property
    def chat(self) -> ChatModel | None:
        return self._chat

    async def close(self) -> None:
        self._runners.clear()
        self._chat = None
        await asyncio.to_thread(_collect)


def _collect() -> None:
    # Modules refer to themselves in circles: their memory is free only when these are found.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
