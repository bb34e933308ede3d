"""The models of a process: loaded once, kept while there is room, put out for others. With loads not real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from activities.backends.machine import Machine
from activities.backends.memory_models import MemoryModelCatalog
from activities.backends.model_host import ModelHost
from activities.backends.scripted_models import ScriptedProvider
from activities.inference_ports import Made
from goatherd.contracts.inference import Bounds, Limits, ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import ModelEntry
from goatherd.errors import ModelBroken, ModelNotFound, Unavailable, WrongTask
from goatherd.settings import Settings
from tests.activities.contract_chat_model import asking, reply
from tests.activities.model_fakes import TASK, FakeProvider, GatedRunner, item
from tests.temporal import eventually

MB = 1 << 20


def spec(mb: int = 0, **fields: Any) -> ModelSpec:
    options = {**({"mb": mb} if mb else {}), **fields.pop("options", {})}
    return ModelSpec(source="some/where", task=TASK, options=options, **fields)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def catalog() -> MemoryModelCatalog:
    return MemoryModelCatalog()


@pytest.fixture
async def host(
    provider: FakeProvider, catalog: MemoryModelCatalog, tmp_path: Path
) -> AsyncIterator[ModelHost]:
    models = {"real": spec(), "fake": ModelSpec(provider="scripted")}
    host = ModelHost(
        Settings(models=models, cache=tmp_path),
        catalog=catalog,
        providers=lambda name: ScriptedProvider() if name == "scripted" else provider,
        machine=Machine("cpu", int(1_000 * MB / 0.6)),
        wait_s=0.2,
    )
    yield host
    provider.gate.set()
    await host.close()


async def used(host: ModelHost, name: str, wanted: ModelSpec) -> None:
    async with host.use(name, wanted):
        pass


async def test_two_first_requests_load_once(host: ModelHost, provider: FakeProvider) -> None:
    await asyncio.gather(*(used(host, "real", spec()) for _ in range(10)))
    await used(host, "real", spec())
    assert provider.loads == ["real"]
    assert host.states() == {"real": "ready"}


async def test_models_never_asked_for_have_no_state(host: ModelHost) -> None:
    assert set(host.specs) == {"real", "fake"}
    assert host.states() == {}


async def test_everybody_who_waits_sees_the_progress(host: ModelHost) -> None:
    seen: list[tuple[str, str]] = []
    here = threading.get_ident()

    def watcher(who: str) -> Callable[[str], None]:
        def watch(text: str) -> None:
            assert threading.get_ident() == here
            seen.append((who, text))

        return watch

    await asyncio.gather(host.preload("real", watcher("a")), host.preload("real", watcher("b")))
    assert seen == [("a", "loading real: weights …"), ("b", "loading real: weights …")]


async def test_failed_load_says_why_and_may_be_tried_again(host: ModelHost, provider: FakeProvider) -> None:
    provider.failures = 1
    results = await asyncio.gather(
        used(host, "real", spec()), used(host, "real", spec()), return_exceptions=True
    )
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert host.states() == {"real": "failed: the disk is asleep"}
    assert host.used_bytes == 0
    await used(host, "real", spec())
    assert host.states() == {"real": "ready"}


async def test_failed_load_of_a_model_that_is_just_registered_is_told_until_it_is_changed(
    host: ModelHost, catalog: MemoryModelCatalog, provider: FakeProvider
) -> None:
    provider.failures = 1
    await catalog.add(ModelEntry(name="late", spec=spec(100)))
    wanted = (await catalog.all())[0].spec
    with pytest.raises(Unavailable):
        await used(host, "late", wanted)
    await host.look()
    assert host.states() == {"late": "failed: the disk is asleep"}
    await catalog.remove("late")
    await host.look()
    assert host.states() == {}


async def test_load_goes_on_when_its_asker_gives_up(host: ModelHost, provider: FakeProvider) -> None:
    provider.gate.clear()
    asker = asyncio.create_task(used(host, "real", spec()))
    await provider.begun()
    assert host.states()["real"].startswith("loading")
    asker.cancel()
    await asyncio.wait({asker})
    provider.gate.set()
    await used(host, "real", spec())
    assert provider.loads == ["real"]


async def test_missing_extra_is_named(tmp_path: Path) -> None:
    class Lacking(FakeProvider):
        def load(self, *_: Any) -> Any:
            raise ImportError("no torch", name="torch")

    host = ModelHost(Settings(cache=tmp_path), providers=lambda _: Lacking(), machine=Machine("cpu", MB))
    with pytest.raises(ModelBroken, match=r"needs torch .* `pip install goatherd\[inference\]`"):
        await used(host, "real", spec())
    await host.close()


# -- memory


async def test_least_recently_used_goes_for_another(host: ModelHost, provider: FakeProvider) -> None:
    for name in ("a", "b", "a"):
        await used(host, name, spec(400))
    await used(host, "c", spec(400))
    assert host.states() == {"a": "ready", "c": "ready"}
    assert host.used_bytes == 800 * MB
    assert [model.closed for model in provider.models] == [False, True, False]


async def test_model_in_use_stays(host: ModelHost) -> None:
    async with host.use("a", spec(400)):
        await used(host, "b", spec(400))
        await used(host, "c", spec(400))
        assert host.states() == {"a": "ready", "c": "ready"}


async def test_pinned_model_stays(host: ModelHost) -> None:
    for name, wanted in (("a", spec(400, pinned=True)), ("b", spec(400)), ("c", spec(400))):
        await used(host, name, wanted)
    assert host.states() == {"a": "ready", "c": "ready"}


async def test_load_waits_for_models_in_use(host: ModelHost) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host.use("a", spec(900)))
        other = asyncio.create_task(used(host, "b", spec(900)))
        await asyncio.sleep(0.02)
        assert not other.done()
        await stack.aclose()
        await other
    assert host.states() == {"b": "ready"}


async def test_load_that_waits_too_long_may_be_tried_again(host: ModelHost) -> None:
    async with host.use("a", spec(900)):
        with pytest.raises(Unavailable, match="no room for the model 'b' now: 'a' are in use") as raised:
            await used(host, "b", spec(900))
        assert raised.value.code == "no-room"
        assert raised.value.retry_after_s >= 1
        assert host.states() == {"a": "ready"}
    await used(host, "b", spec(900))


async def test_model_that_can_never_fit_says_sizes_and_setting(
    host: ModelHost, provider: FakeProvider
) -> None:
    said = r"takes about 1001 MB.*1000 MB.*GOATHERD_MODEL_MEMORY_MB"
    with pytest.raises(Unavailable, match=said) as raised:
        await used(host, "big", spec(1_001))
    assert raised.value.code == "model-too-large"
    assert provider.loads == []


async def test_what_pinned_models_keep_counts(host: ModelHost) -> None:
    await used(host, "a", spec(400, pinned=True))
    with pytest.raises(Unavailable, match="pinned models keep 400 MB"):
        await used(host, "b", spec(700))


async def test_measured_memory_counts_not_the_guess(host: ModelHost) -> None:
    await used(host, "a", spec(300, options={"guess": 900}))
    assert host.used_bytes == 300 * MB
    await used(host, "b", spec(900, options={"guess": 100}))
    assert host.states() == {"b": "ready"}
    assert host.used_bytes == 900 * MB


async def test_model_that_turns_out_too_large_is_closed(host: ModelHost, provider: FakeProvider) -> None:
    with pytest.raises(Unavailable, match="takes about 2000 MB"):
        await used(host, "a", spec(2_000, options={"guess": 10}))
    assert provider.models[0].closed
    assert host.used_bytes == 0


async def test_two_loads_do_not_count_on_the_same_room(host: ModelHost, provider: FakeProvider) -> None:
    provider.gate.clear()
    first = asyncio.create_task(used(host, "a", spec(600)))
    await provider.begun()
    with pytest.raises(Unavailable, match="no room"):
        await used(host, "b", spec(600))
    provider.gate.set()
    await first
    await used(host, "b", spec(600))
    assert host.states() == {"b": "ready"}


async def test_setting_bounds_the_memory(provider: FakeProvider, tmp_path: Path) -> None:
    settings = Settings(model_memory_mb=100, cache=tmp_path)
    host = ModelHost(settings, providers=lambda _: provider, machine=Machine("cpu", 1 << 40))
    assert host.memory_bytes == 100 * MB
    with pytest.raises(Unavailable, match="100 MB"):
        await used(host, "a", spec(101))
    await host.close()


# -- load, unload, another spec


async def test_loaded_and_unloaded_when_asked(host: ModelHost, provider: FakeProvider) -> None:
    assert (await host.load("a", spec(400))).state == "ready"
    assert (await host.unload("a")).state == "unloaded"
    assert provider.models[0].closed
    assert host.states() == {}
    assert host.used_bytes == 0
    assert (await host.unload("nobody")).state == "unloaded"


async def test_unloaded_model_goes_when_its_users_are_done(host: ModelHost, provider: FakeProvider) -> None:
    async with host.use("a", spec(400)):
        await host.unload("a")
        assert not provider.models[0].closed
    await host.unload("a")
    assert provider.models[0].closed
    assert host.used_bytes == 0


async def test_model_unloaded_while_it_loads_goes_when_it_has(
    host: ModelHost, provider: FakeProvider
) -> None:
    provider.gate.clear()
    asker = asyncio.create_task(used(host, "a", spec(400)))
    await provider.begun()
    await host.unload("a")
    asker.cancel()
    await asyncio.wait({asker})
    provider.gate.set()

    async def closed() -> bool:
        return bool(provider.models) and provider.models[0].closed and host.used_bytes == 0

    await eventually(closed)
    assert host.states() == {}


async def test_unload_that_is_cancelled_goes_on_and_counts_the_memory_until_then(
    host: ModelHost, provider: FakeProvider
) -> None:
    await host.load("a", spec(900))
    model = provider.models[0]
    closing, close = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        closing.set()
        await close.wait()
        model.closed = True

    model.close = slow  # type: ignore[method-assign]
    unloading = asyncio.create_task(host.unload("a"))
    await closing.wait()
    unloading.cancel()
    await asyncio.wait({unloading})
    assert host.used_bytes == 900 * MB
    # Nor does a load that has to wait for its room, and is not waited for.
    other = asyncio.create_task(host.load("b", spec(500)))
    await asyncio.sleep(0)
    assert host.used_bytes == 900 * MB
    close.set()
    assert (await other).state == "ready"
    assert model.closed
    assert host.used_bytes == 500 * MB


async def test_other_spec_is_loaded_and_the_old_one_drains(host: ModelHost, provider: FakeProvider) -> None:
    async with host.use("a", spec(100)) as old:
        async with host.use("a", spec(200)) as new:
            assert old is not new
        assert not provider.models[0].closed
        (got,) = await old.compute(TASK, [item("still here")], callers=["me"])
        assert got.result == Made("STILL HERE")
    await host.unload("nobody")
    assert provider.models[0].closed
    assert not provider.models[1].closed
    assert host.used_bytes == 200 * MB


async def test_limits_change_without_another_load(host: ModelHost, provider: FakeProvider) -> None:
    runner = GatedRunner()
    provider.make = lambda: runner
    await used(host, "a", spec())
    async with host.use("a", spec(limits=Limits(batch=2))) as hosted:
        await hosted.compute(TASK, [item(text) for text in "abcd"], callers=["me"] * 4)
    assert provider.loads == ["a"]
    assert [len(batch) for batch in runner.batches] == [2, 2]


async def test_task_that_a_model_is_not_for_is_refused(host: ModelHost) -> None:
    async with host.use("a", spec()) as hosted:
        with pytest.raises(WrongTask, match="'a' is for text-classification, not for translation"):
            await hosted.compute(Task.TRANSLATION, [item("x")], callers=["me"])


# -- registered models


async def test_registered_model_is_known_at_once_when_asked_for(
    host: ModelHost, catalog: MemoryModelCatalog
) -> None:
    with pytest.raises(ModelNotFound, match="no model is called 'late'; there are 'real', 'fake'"):
        await host.spec("late")
    await catalog.add(ModelEntry(name="late", spec=spec()))
    assert await host.spec("late") == spec().model_copy(update={"bounds": Bounds()})


async def test_registered_model_that_is_removed_goes(
    host: ModelHost, catalog: MemoryModelCatalog, provider: FakeProvider
) -> None:
    await catalog.add(ModelEntry(name="late", spec=spec(100)))
    await used(host, "late", await host.spec("late"))
    await catalog.remove("late")
    await host.look()
    await host.unload("late")
    assert host.states() == {}
    assert provider.models[0].closed


async def test_pinned_model_is_loaded_when_it_is_registered(
    host: ModelHost, catalog: MemoryModelCatalog, provider: FakeProvider
) -> None:
    await catalog.add(ModelEntry(name="late", spec=spec(100, pinned=True)))
    await host.look()
    await provider.begun()
    await used(host, "late", await host.spec("late"))
    assert provider.loads == ["late"]


async def test_changed_registration_is_loaded_anew(
    host: ModelHost, catalog: MemoryModelCatalog, provider: FakeProvider
) -> None:
    await catalog.add(ModelEntry(name="late", spec=spec(100)))
    await used(host, "late", await host.spec("late"))
    await catalog.remove("late")
    await catalog.add(ModelEntry(name="late", spec=spec(200)))
    await host.look()
    await used(host, "late", await host.spec("late"))
    assert provider.loads == ["late", "late"]
    await host.unload("nobody")
    assert host.used_bytes == 200 * MB


# -- chats


async def test_scripted_model_talks(host: ModelHost) -> None:
    got = await reply(await host.get("fake"), asking("hello"))
    assert got.text == "You said: hello"


async def test_chat_model_is_in_use_while_it_replies(host: ModelHost) -> None:
    chat = await host.get("fake")
    assert await host.get("fake") is chat
    await host.unload("fake")
    assert host.states() == {"fake": "unloaded"}
    assert (await reply(chat, asking("again"))).text == "You said: again"
    assert host.states() == {"fake": "ready"}


async def test_model_that_does_not_talk_says_so(host: ModelHost) -> None:
    with pytest.raises(WrongTask, match="'real' is for text-classification"):
        await host.get("real")


async def test_unknown_model_is_not_found(host: ModelHost) -> None:
    with pytest.raises(ModelNotFound, match="no model is called 'nobody'; there are 'real', 'fake'"):
        await host.get("nobody")


async def test_folder_that_is_no_model_is_broken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    host = ModelHost(Settings(models={"broken": ModelSpec(source=str(tmp_path))}, model_memory_mb=100))
    with pytest.raises(ModelBroken, match="model 'broken' can't be loaded"):
        await host.get("broken")
    assert host.states()["broken"].startswith("failed: model 'broken' can't be loaded")
    await host.close()
