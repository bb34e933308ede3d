"""Where a model's files may be that a request has registered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from activities.backends import model_sources
from activities.backends.model_sources import local_place, prepare, reading
from activities.backends.piper import PiperProvider
from activities.inference_ports import LoadContext
from goatherd.contracts.inference import Bounds, ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import ModelBroken


def posted(source: object, root: Path | None = None, **more: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {"source": str(source), "bounds": Bounds(root=None if root is None else str(root)), **more}
    )


def test_place_below_the_root_is_taken_and_no_other(tmp_path: Path) -> None:
    root = tmp_path / "models"
    (root / "goats").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (root / "out").symlink_to(tmp_path / "private")
    spec = posted("x", root)
    assert local_place("m", spec, str(root / "goats")) == root / "goats"
    for source in (tmp_path / "private", root / ".." / "private", root / "out", "/", "~", "models"):
        with pytest.raises(ModelBroken, match="registered by a request"):
            local_place("m", spec, str(source))
    assert local_place("m", ModelSpec(), "/") == Path("/")


def test_hub_id_is_no_folder_where_the_worker_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    hub = tmp_path / "hub"
    monkeypatch.setattr(model_sources, "_from_hub", lambda *_: hub)
    assert prepare("m", posted("owner/model"), tmp_path) == hub
    assert prepare("m", ModelSpec(source="owner/model"), tmp_path) == Path("owner/model")


def test_voice_of_a_request_is_sought_nowhere_else(tmp_path: Path) -> None:
    spec = posted(tmp_path, provider="piper", task=Task.TEXT_TO_SPEECH)
    with ThreadPoolExecutor(1) as threads, pytest.raises(ModelBroken, match="registered by a request"):
        PiperProvider().estimate("m", spec, LoadContext(cache=tmp_path, executor=threads))


def test_what_the_file_system_says_is_an_error_of_ours_and_told_to_the_settings_alone() -> None:
    for spec, told in ((ModelSpec(), True), (posted("x"), False)):
        with pytest.raises(ModelBroken) as caught, reading("m", spec):
            raise PermissionError(13, "Permission denied", "/private/key")
        assert ("/private/key" in caught.value.message) is told
