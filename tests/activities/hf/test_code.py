from __future__ import annotations

import sys
from pathlib import Path

import pytest

from activities.backends.hf.code import import_modules
from activities.backends.hf.provider import HuggingFaceProvider
from goatherd.contracts.inference import ModelSpec
from goatherd.errors import Invalid, ModelBroken


def spec(*modules: object) -> ModelSpec:
    return ModelSpec(source="a/model", options={"code": list(modules)})


def test_modules_are_imported_from_the_path_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "goats_for_tests.py").write_text("import sys\nsys.goats = getattr(sys, 'goats', 0) + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_modules("m", spec("goats_for_tests"))
    import_modules("m", spec("goats_for_tests"))
    assert sys.goats == 1  # type: ignore[attr-defined]


def test_modules_are_found_in_the_workers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kids_for_tests.py").write_text("KIDS = 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    import_modules("m", spec("kids_for_tests"))
    assert sys.modules["kids_for_tests"].KIDS == 2


def test_module_that_is_not_there_breaks_the_model() -> None:
    with pytest.raises(ModelBroken, match="'no_such_goat' can't be imported"):
        import_modules("m", spec("json", "no_such_goat"))


@pytest.mark.parametrize("bad", ["../evil", "a b", "", "os; x", "http://x/y.py", 7, "a..b"])
def test_what_is_no_module_is_refused_where_it_is_registered(bad: object) -> None:
    with pytest.raises(Invalid) as raised:
        HuggingFaceProvider().check("m", spec(bad))
    assert raised.value.pointer == "/options/code/0"


def test_unknown_option_is_refused() -> None:
    wrong = ModelSpec(source="a/model", options={"trust_remote_code": True})
    with pytest.raises(Invalid, match="trust_remote_code") as raised:
        HuggingFaceProvider().check("m", wrong)
    assert raised.value.pointer == "/options/trust_remote_code"
