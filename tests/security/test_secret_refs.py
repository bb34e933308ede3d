"""Secrets by reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from goatherd.errors import Unavailable
from goatherd.security.secret_refs import read_secret


def test_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOAT_KEY", "sesame\n")
    assert read_secret("env:GOAT_KEY").get_secret_value() == "sesame"


def test_secret_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\r\n")
    assert read_secret(f"file:{tmp_path}/key").get_secret_value() == "sesame"


def test_secret_does_not_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOAT_KEY", "sesame")
    secret = read_secret("env:GOAT_KEY")
    assert "sesame" not in f"{secret} {secret!r}"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe\x00", b"x" * 100_000])
def test_what_is_no_secret_is_told_by_its_place_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unavailable) as caught:
        read_secret(f"file:{path}")
    assert caught.value.code == "model-unavailable"
    assert str(path) in caught.value.message
    assert "xxx" not in caught.value.message


def test_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOAT_KEY", raising=False)
    with pytest.raises(Unavailable, match="GOAT_KEY is not set"):
        read_secret("env:GOAT_KEY")


def test_secret_in_place_of_a_reference_is_not_repeated() -> None:
    with pytest.raises(Unavailable) as caught:
        read_secret("sk-somebodys-key")
    assert "sk-somebodys-key" not in caught.value.message
