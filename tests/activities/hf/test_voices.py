"""`text-to-speech` by VITS and SpeechT5 with random weights: what is heard means nothing; tested are its
form, and that it is the pipeline's."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from activities.backends.media.audio import MIMES, Sound, SoundFormat, read_sound, write_sound
from activities.backends.spoken import MOST_CHARS
from activities.inference_ports import LoadedModel
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid, ModelBroken, Unavailable
from tests.activities.hf.media_calls import item, loaded, run
from tests.models.unlearned import unlearned

SPEECH = Task.TEXT_TO_SPEECH
TEXT = "hello goat"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: unlearned(folder, name) for name in ("vits", "vits-of-three", "speecht5")}


@pytest.fixture(scope="module")
def vits(weights: dict[str, Path]) -> LoadedModel:
    return loaded(weights["vits"], SPEECH)


@pytest.fixture(scope="module")
def speecht5(weights: dict[str, Path]) -> LoadedModel:
    place = weights["speecht5"]
    options = {"vocoder": str(place / "vocoder"), "voices": str(place / "voices.safetensors")}
    return loaded(place, SPEECH, options=options)


@pytest.fixture(params=["vits", "speecht5"])
def speaker(request: pytest.FixtureRequest) -> LoadedModel:
    model: LoadedModel = request.getfixturevalue(request.param)
    return model


def seconds(media: Any) -> float:
    return read_sound(media.data, 16_000).duration_s


def test_speech_is_that_of_the_pipeline(vits: LoadedModel) -> None:
    (got,) = run(vits, [item(SPEECH, TEXT, seed=5)])
    runner: Any = vits.runner(SPEECH)
    torch.manual_seed(5)
    expected = runner._pipe(TEXT)
    assert got.data == write_sound(Sound(expected["audio"].reshape(-1), expected["sampling_rate"]))
    assert got.mime == "audio/wav"


def test_seed_decides_the_speech_and_each_item_has_its_own(speaker: LoadedModel) -> None:
    one, other, same = run(speaker, [item(SPEECH, TEXT, seed=seed) for seed in (1, 2, 1)])
    assert one == same
    assert other.mime == one.mime


def test_without_a_seed_speech_differs(vits: LoadedModel) -> None:
    one, other = run(vits, [item(SPEECH, TEXT), item(SPEECH, TEXT)])
    assert one != other


@pytest.mark.parametrize("form", list(MIMES))
def test_each_format_is_written(speaker: LoadedModel, form: SoundFormat) -> None:
    (got,) = run(speaker, [item(SPEECH, TEXT, format=form)])
    assert got.mime == MIMES[form]
    assert got.data
    if form != "pcm":
        assert seconds(got) > 0


def test_speed_is_each_items_own(vits: LoadedModel) -> None:
    items = [item(SPEECH, "hello goat " * 10, speed=speed, seed=1) for speed in (1.0, 2.0, 0.5)]
    plain, fast, slow = (seconds(one) for one in run(vits, items))
    assert fast < 0.7 * plain
    assert slow > 1.5 * plain


def test_text_without_anything_to_speak_fails_alone(vits: LoadedModel) -> None:
    foreign, marks, good = run(vits, [item(SPEECH, "你好"), item(SPEECH, "?!"), item(SPEECH, TEXT)])
    assert isinstance(foreign, Invalid)
    assert foreign.message == "nothing in the text can be spoken"
    assert isinstance(marks, Invalid)
    assert seconds(good) > 0


def test_long_text_is_spoken_whole_and_too_long_a_one_refused(vits: LoadedModel) -> None:
    long, huge = run(vits, [item(SPEECH, "hello goat. " * 60), item(SPEECH, "a" * (MOST_CHARS + 1))])
    assert seconds(long) > 5
    assert isinstance(huge, Invalid)
    assert huge.code == "too-long"


def test_speakers_are_named_by_number(weights: dict[str, Path]) -> None:
    model = loaded(weights["vits-of-three"], SPEECH)
    first, third, none, default = run(
        model, [item(SPEECH, TEXT, seed=1, voice=voice) for voice in ("0", "2", "3", None)]
    )
    assert first != third
    assert first == default
    assert isinstance(none, Invalid)
    assert none.message == "there is no voice '3', but 0 to 2"


def test_voices_are_named_by_their_file(speecht5: LoadedModel) -> None:
    anna, boris, none, default = run(
        speecht5, [item(SPEECH, TEXT, seed=1, voice=voice) for voice in ("anna", "boris", "carla", None)]
    )
    assert anna == default
    assert boris.mime == "audio/wav"
    assert isinstance(none, Invalid)
    assert none.message == "there is no voice 'carla', but anna, boris"


def test_model_that_needs_voices_is_not_loaded_without(weights: dict[str, Path]) -> None:
    options = {"vocoder": str(weights["speecht5"] / "vocoder")}
    with pytest.raises(ModelBroken, match="set the option `voices`"):
        loaded(weights["speecht5"], SPEECH, options=options)


def test_parameters_of_generation_are_refused_by_a_model_that_does_not(vits: LoadedModel) -> None:
    (got,) = run(vits, [item(SPEECH, TEXT, generation_parameters={"top_k": 3})])
    assert isinstance(got, Invalid)
    assert got.pointer == "/parameters/generation_parameters"


def test_nothing_is_computed_for_nobody(vits: LoadedModel) -> None:
    cancelled = Event()
    cancelled.set()
    (got,) = run(vits, [item(SPEECH, TEXT)], cancelled)
    assert isinstance(got, Unavailable)
