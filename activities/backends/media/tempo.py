"""Speech made faster or slower at the same pitch, for models that can't do it themselves.

Waveform similarity overlap-add: Verhelst and Roelands, "An overlap-add technique based on waveform
similarity (WSOLA) for high quality time-scale modification of speech", ICASSP 1993.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from activities.backends.media.audio import Sound

if TYPE_CHECKING:
    from activities.backends.media.audio import Samples

# Of the pieces that are overlapped by half, and how far a piece may be shifted to fit the one before:
# more than a period of the deepest voices (70 Hz).
_WINDOW_S = 0.030
_SHIFT_S = 0.015


def at_speed(sound: Sound, speed: float) -> Sound:
    """The sound, `speed` times as fast. 1 is the sound itself."""
    half = int(_WINDOW_S * sound.rate / 2)
    if speed == 1.0 or len(sound.samples) < 4 * half:
        return sound
    return Sound(_stretch(sound.samples, speed, half, int(_SHIFT_S * sound.rate)), sound.rate)


def _stretch(samples: Samples, speed: float, half: int, shift: int) -> Samples:
    length = round(len(samples) / speed)
    steps = length // half + 1
    window = np.hanning(2 * half + 1)[:-1].astype(np.float32)
    padded = np.pad(samples, (half + shift, 3 * half + 2 * shift))
    out = np.zeros((steps + 2) * half, dtype=np.float32)
    follows: Samples | None = None
    for step in range(steps):
        middle = min(int(step * half * speed), len(samples)) + shift
        if follows is None:
            begin = middle
        else:
            # Where the input goes on most like what would have followed the piece before.
            area = padded[middle - shift : middle + shift + 2 * half]
            begin = middle - shift + int(np.argmax(np.correlate(area, follows, mode="valid")))
        out[step * half : step * half + 2 * half] += window * padded[begin : begin + 2 * half]
        follows = padded[begin + half : begin + 3 * half]
    return out[half : half + length]
