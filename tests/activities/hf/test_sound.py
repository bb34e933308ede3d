"""`audio-classification` with random weights: its labels mean nothing; tested is that they are the
pipeline's."""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
import pytest

from activities.backends.hf.sound import MOST_S
from activities.backends.media.audio import Sound, read_sound
from activities.inference_ports import LoadedModel
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Unavailable, UnreadableMedia
from tests.activities.hf.media_calls import item, loaded, run
from tests.activities.media.files import sound_file, tone
from tests.models.unlearned import unlearned

CLASSES = Task.AUDIO_CLASSIFICATION


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded(unlearned(tmp_path_factory.mktemp("weights"), "wav2vec2"), CLASSES)


def pipe_of(model: LoadedModel) -> Any:
    runner: Any = model.runner(CLASSES)
    return runner._pipe


def test_labels_are_those_of_the_pipeline(model: LoadedModel) -> None:
    files = [
        sound_file(tone(1.0)),
        sound_file(tone(0.5, rate=44_100), "flac"),
        sound_file(tone(1.0, pitch=90.0)),
    ]
    got = run(model, [item(CLASSES, data) for data in files])
    for labels, data in zip(got, files, strict=True):
        expected = pipe_of(model)(read_sound(data, 16_000).samples)
        assert [one.label for one in labels] == [one["label"] for one in expected]
        assert [one.score for one in labels] == pytest.approx([one["score"] for one in expected], abs=1e-5)


def test_sounds_of_one_length_are_computed_together(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, sizes = pipe_of(model), []
    forward = pipe.forward

    def counting(inputs: Any) -> Any:
        sizes.append(len(inputs["input_values"]))
        return forward(inputs)

    monkeypatch.setattr(pipe, "forward", counting)
    run(model, [item(CLASSES, sound_file(tone(length))) for length in (1.0, 2.0, 1.0, 1.0)])
    assert sizes == [3, 1]


def test_parameters_are_each_items_own_and_a_bad_file_fails_alone(model: LoadedModel) -> None:
    data = sound_file(tone(1.0))
    plain, one, raw, bad = run(
        model,
        [
            item(CLASSES, data),
            item(CLASSES, data, top_k=1),
            item(CLASSES, data, function_to_apply="none"),
            item(CLASSES, data[:30]),
        ],
    )
    assert sum(label.score for label in plain) == pytest.approx(1)
    assert one == plain[:1]
    assert sum(label.score for label in raw) != pytest.approx(1)
    assert isinstance(bad, UnreadableMedia)


def test_silence_is_classified_and_what_is_too_long_refused(model: LoadedModel) -> None:
    silence = sound_file(Sound(np.zeros(16_000, dtype=np.float32), 16_000))
    minute = sound_file(tone(60.0))
    quiet, long, too_long = run(
        model, [item(CLASSES, data) for data in (silence, minute, sound_file(tone(MOST_S + 1)))]
    )
    assert len(quiet) == len(long) == 3
    assert isinstance(too_long, UnreadableMedia)


def test_nothing_is_computed_for_nobody(model: LoadedModel) -> None:
    cancelled = Event()
    cancelled.set()
    (got,) = run(model, [item(CLASSES, sound_file(tone(1.0)))], cancelled)
    assert isinstance(got, Unavailable)
