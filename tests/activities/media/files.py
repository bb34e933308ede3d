"""Images and sounds as files, drawn and played for tests."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from activities.backends.media.audio import Sound, SoundFormat, write_sound


def image_file(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form, **options)
    return out.getvalue()


def drawing(width: int = 64, height: int = 48) -> Image.Image:
    """Red at the left, green below, blue all over."""
    across, down = np.meshgrid(np.linspace(255, 0, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, np.full_like(across, 90)], axis=-1).astype(np.uint8))


def tone(seconds: float, *, rate: int = 16_000, pitch: float = 440.0) -> Sound:
    at = np.arange(int(seconds * rate)) / rate
    return Sound((0.5 * np.sin(2 * np.pi * pitch * at)).astype(np.float32), rate)


def sound_file(sound: Sound, form: SoundFormat = "wav") -> bytes:
    return write_sound(sound, form)


def pitch_of(sound: Sound) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(sound.samples)))) / sound.duration_s


def photograph(name: str) -> bytes:
    """One of those that scikit-image carries. The package itself is not imported."""
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        pytest.skip("scikit-image is not installed")
    return (Path(found.submodule_search_locations[0]) / "data" / name).read_bytes()
