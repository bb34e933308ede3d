"""Sounds between files and samples: libsndfile (soundfile) reads and writes, soxr changes the rate."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from activities.backends.media.kinds import seen
from goatherd.errors import UnreadableMedia

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Samples = NDArray[float32]

MOST_S = 30 * 60.0
"""Seconds of a sound that are decoded, unless a model takes less."""

SoundFormat = Literal["wav", "flac", "mp3", "opus", "pcm"]

MIMES: dict[str, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
}

PCM_RATE = 24_000
"""Of format `pcm`, which says nothing of itself: signed 16-bit, little-endian, mono, as OpenAI has it."""

_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_MOST_CHANNELS = 16
_BLOCK = 1 << 16
_READ = "WAV, FLAC, MP3, Ogg (Vorbis, Opus) and AIFF are read"


@dataclass(frozen=True, slots=True)
class Sound:
    """One channel, at `rate` samples a second."""

    samples: Samples
    rate: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate


def peek_s(data: bytes) -> float:
    """How long the sound is, by its header alone, which may lie.

    Raises:
        UnreadableMedia: it has none.
    """
    import soundfile

    with _errors_translated(data), soundfile.SoundFile(io.BytesIO(data)) as file:
        seconds: float = file.frames / file.samplerate
    return min(seconds, MOST_S)


def read_sound(data: bytes, rate: int, *, most_s: float = MOST_S) -> Sound:
    """The file's sound, its channels averaged, at the rate that is asked for.

    Raises:
        UnreadableMedia: it is no sound that can be decoded, has nothing in it, or is longer than `most_s`.
    """
    import soundfile

    with _errors_translated(data), soundfile.SoundFile(io.BytesIO(data)) as file:
        return _read(file, rate, most_s)


@contextmanager
def _errors_translated(data: bytes) -> Iterator[None]:
    import soundfile

    if not data:
        raise UnreadableMedia(f"no sound: {seen(data)}")
    try:
        yield
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        why = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        raise UnreadableMedia(
            f"no sound that can be decoded: it looks like {seen(data)} ({why}); {_READ}"
        ) from error


def _read(file: Any, rate: int, most_s: float) -> Sound:
    import numpy as np
    import soxr

    if file.channels > _MOST_CHANNELS:
        raise UnreadableMedia(
            f"the sound has {file.channels} channels, and at most {_MOST_CHANNELS} are mixed"
        )
    # Read by blocks, whatever the header says: it may lie, and long stereo at a high rate would take
    # ten times the memory of what is kept.
    most = int(most_s * file.samplerate)
    change = soxr.ResampleStream(file.samplerate, rate, 1) if file.samplerate != rate else None
    kept: list[Samples] = []
    count = 0
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        count += len(block)
        if count > most:
            raise UnreadableMedia(f"the sound is longer than {most_s:,.0f} s")
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1)
        kept.append(mono if change is None else change.resample_chunk(mono))
    if not count:
        raise UnreadableMedia("the sound has no samples")
    if change is not None:
        kept.append(change.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    samples = np.ascontiguousarray(np.concatenate(kept), dtype=np.float32)
    if not np.isfinite(samples).all():
        raise UnreadableMedia("the sound has samples that are no finite numbers")
    return Sound(samples, rate)


def write_sound(sound: Sound, form: SoundFormat = "wav") -> bytes:
    """The sound as a file, 16 bits a sample where the format has any.

    At its own rate if the format knows it; else at the next higher one. `pcm` is always at `PCM_RATE`.
    """
    import numpy as np
    import soundfile

    if form == "pcm":
        samples = np.clip(at_rate(sound, PCM_RATE).samples, -1, 1)
        return (samples * 32_767).astype("<i2").tobytes()
    container, subtype = {
        "wav": ("WAV", "PCM_16"),
        "flac": ("FLAC", "PCM_16"),
        "mp3": ("MP3", "MPEG_LAYER_III"),
        "opus": ("OGG", "OPUS"),
    }[form]
    if form in ("opus", "mp3"):
        rates = _OPUS_RATES if form == "opus" else _MP3_RATES
        sound = at_rate(sound, next((rate for rate in rates if rate >= sound.rate), rates[-1]))
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", sound.rate, 1, subtype=subtype, format=container) as file:
        # By blocks: libsndfile's encoders keep a whole write on their stack.
        for start in range(0, len(sound.samples), _BLOCK):
            file.write(np.clip(sound.samples[start : start + _BLOCK], -1, 1))
    return out.getvalue()


def at_rate(sound: Sound, rate: int) -> Sound:
    import numpy as np
    import soxr

    if rate == sound.rate:
        return sound
    return Sound(soxr.resample(sound.samples, sound.rate, rate).astype(np.float32), rate)
