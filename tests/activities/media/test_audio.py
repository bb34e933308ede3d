from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from activities.backends.media import audio
from activities.backends.media.audio import MIMES, PCM_RATE, Sound, peek_s, read_sound, write_sound
from activities.backends.media.tempo import at_speed
from goatherd.errors import UnreadableMedia
from tests.activities.media.files import pitch_of, sound_file, tone

FILES = [form for form in MIMES if form != "pcm"]


@pytest.mark.parametrize("form", FILES)
def test_sound_is_written_and_read_back_at_another_rate(form: audio.SoundFormat) -> None:
    sound = read_sound(write_sound(tone(2.0, rate=22_050), form), 16_000)
    assert sound.rate == 16_000
    assert sound.duration_s == pytest.approx(2.0, abs=0.05)
    assert pitch_of(sound) == pytest.approx(440, abs=1)


def test_wav_is_exact_at_its_own_rate() -> None:
    sound = tone(0.5)
    assert np.abs(read_sound(write_sound(sound), 16_000).samples - sound.samples).max() < 1e-4


def test_stereo_is_averaged() -> None:
    out = io.BytesIO()
    sides = np.stack([tone(1.0, rate=44_100).samples, np.zeros(44_100)], axis=1)
    soundfile.write(out, sides, 44_100, format="WAV")
    sound = read_sound(out.getvalue(), 44_100)
    assert np.abs(sound.samples).max() == pytest.approx(0.25, abs=0.01)
    assert pitch_of(read_sound(out.getvalue(), 16_000)) == pytest.approx(440, abs=1)


def test_rate_is_changed_alike_in_blocks_and_at_once() -> None:
    sound = tone(20.0, rate=44_100)
    whole = audio.at_rate(sound, 16_000)
    read = read_sound(sound_file(sound, "flac"), 16_000)
    assert len(read.samples) == pytest.approx(len(whole.samples), abs=1)
    both = min(len(read.samples), len(whole.samples))
    assert np.abs(read.samples[:both] - whole.samples[:both]).max() < 1e-3


def test_pcm_is_16_bits_at_its_rate() -> None:
    samples = np.frombuffer(write_sound(tone(1.0), "pcm"), dtype="<i2")
    assert len(samples) == PCM_RATE
    assert pitch_of(Sound(samples.astype(np.float32), PCM_RATE)) == pytest.approx(440, abs=1)


def test_too_loud_samples_are_cut() -> None:
    loud = Sound(np.full(1_600, 3.0, dtype=np.float32), 16_000)
    assert read_sound(write_sound(loud), 16_000).samples.max() <= 1.0
    assert np.frombuffer(write_sound(loud, "pcm"), dtype="<i2").max() == 32_767


def test_silence_and_one_sample_are_sounds() -> None:
    assert read_sound(sound_file(Sound(np.zeros(16_000, np.float32), 16_000)), 16_000).duration_s == 1
    assert len(read_sound(sound_file(Sound(np.zeros(1, np.float32), 16_000)), 16_000).samples) == 1


def test_length_is_told_by_the_header() -> None:
    assert peek_s(sound_file(tone(60.0), "flac")) == 60
    with pytest.raises(UnreadableMedia):
        peek_s(b"goat")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"", "nothing: the file is empty"),
        (b"goats make no sound", r"19 bytes that begin with b'goats make n'"),
        (sound_file(tone(1.0))[:20], "a WAV sound, 20 bytes"),
        (sound_file(tone(1.0))[:44], "no samples"),
        (sound_file(tone(1.0), "flac")[:60], "a FLAC sound, 60 bytes"),
        (sound_file(tone(1.0), "mp3")[:60], "an MP3 sound, 60 bytes"),
        (sound_file(tone(1.0), "opus")[:60], "an Ogg sound, 60 bytes"),
        (b"ID3" + bytes(3_000), "an MP3 sound"),
        (b"\x1aE\xdf\xa3" + bytes(100), "a WebM or Matroska film, 104 bytes .*WAV, FLAC, MP3"),
        (b"\0\0\0\x20ftypM4A \0", "an M4A sound"),
    ],
    # The bytes themselves would be the names, and an Ogg stream has a number that is drawn.
    ids=["empty", "text", "short wav", "bare wav", "flac", "mp3", "opus", "empty mp3", "film", "m4a"],
)
def test_what_is_no_sound_is_refused_with_what_was_seen(data: bytes, seen: str) -> None:
    with pytest.raises(UnreadableMedia, match=seen):
        read_sound(data, 16_000)


@pytest.mark.parametrize("form", FILES)
def test_changed_bytes_are_refused_or_read_but_never_crash(form: audio.SoundFormat) -> None:
    data = sound_file(tone(0.3), form)
    luck = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for place in luck.integers(0, len(data), 8):
            changed[place] = luck.integers(0, 256)
        try:
            assert np.isfinite(read_sound(bytes(changed), 16_000).samples).all()
        except UnreadableMedia:
            continue


def test_samples_that_are_no_numbers_are_refused() -> None:
    out = io.BytesIO()
    soundfile.write(
        out, np.array([0.0, np.nan, 0.5], dtype=np.float32), 16_000, format="WAV", subtype="FLOAT"
    )
    with pytest.raises(UnreadableMedia, match="no finite numbers"):
        read_sound(out.getvalue(), 16_000)


def test_too_long_a_sound_is_refused() -> None:
    data = sound_file(tone(3.0))
    assert read_sound(data, 16_000, most_s=3.0).duration_s == 3
    with pytest.raises(UnreadableMedia, match="longer than 2 s"):
        read_sound(data, 16_000, most_s=2.0)


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.25, 2.0, 4.0])
def test_speed_changes_the_length_and_not_the_pitch(speed: float) -> None:
    sound = at_speed(tone(2.0, pitch=200.0), speed)
    assert sound.duration_s == pytest.approx(2.0 / speed, abs=0.01)
    assert pitch_of(sound) == pytest.approx(200, abs=4)
    assert np.abs(sound.samples).max() == pytest.approx(0.5, abs=0.1)


def test_speed_of_one_changes_nothing() -> None:
    sound = tone(0.2)
    assert at_speed(sound, 1.0) is sound
