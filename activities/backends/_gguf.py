"""Turns a GGUF file into a Hugging Face folder. A process of its own: `python -m activities.backends._gguf`.

Of its own, as it takes a gigabyte for half a minute, of which a worker would keep 200 MB for good.
Prints its progress, a line at a time.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def convert_once(gguf: Path, folder: Path) -> None:
    """Makes `folder` unless it is there. Atomic: it appears complete. Of several processes one does the work.

    Raises:
        OSError: the disk is full or may not be written, or the file is not whole.
        ValueError: the file is not a model that transformers knows.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        _say("another process prepares it; waiting …")
        held = lock.acquire()
    with held:
        if folder.is_dir():
            return
        # Left by a process that was killed: whoever wrote here held the lock that we hold now.
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _convert(gguf, partial)
        partial.rename(folder)


def _convert(gguf: Path, folder: Path) -> None:
    """Writes bfloat16 weights, config, tokenizer and chat template.

    bfloat16 as it is what models are published in: the file's quantization has cost more than this rounding.
    Transformers' own way, `from_pretrained` with `gguf_file` and then `save_pretrained`, wants accelerate and
    refuses to save what was quantized: hence the parts one by one.
    """
    _say("loading torch and transformers …")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    _say("reading the tokenizer …")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    _say("converting the weights …")
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    loaded: Any = load_gguf_checkpoint(  # type: ignore[no-untyped-call]
        str(gguf), return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16
    )
    # Not strict: tied weights (lm_head) are not in the file. What has no data after tying is missing.
    model.load_state_dict(loaded["tensors"], strict=False, assign=True)
    model.tie_weights()
    missing = [key for key, weight in model.named_parameters() if weight.is_meta]
    if missing:
        raise OSError(f"{gguf.name} lacks weights: {', '.join(missing[:3])}")
    _say("writing …")
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    convert_once(Path(sys.argv[1]), Path(sys.argv[2]))
