"""Where a graph's file is, and the labels of its classes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from activities.backends.model_sources import broken, local_place, package_folder, reading, unusable
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.providers import TFLiteOptions

_PACKAGE = "package:"
_MOST_LABEL_BYTES = 4 << 20


def find_graph(name: str, spec: ModelSpec, options: TFLiteOptions) -> Path:
    """The `.tflite` file of a spec whose source is one, or a folder or package (`package:NAME`) with one.

    Raises:
        ModelBroken: there is none, or several and no option `file` says which.
    """
    with reading(name, spec):
        return _found(name, spec, options)


def _found(name: str, spec: ModelSpec, options: TFLiteOptions) -> Path:
    source = spec.source
    if source.startswith(_PACKAGE):
        place = package_folder(name, source.removeprefix(_PACKAGE))
    else:
        place = local_place(name, spec, source)
    if place.is_file():
        return place
    if not place.is_dir():
        raise broken(name, f"there is no {source!r}", "set its source to where the file is")
    files = sorted(place.rglob("*.tflite"))
    if options.file is not None:
        files = [file for file in files if file.relative_to(place).as_posix().endswith(options.file)]
    if len(files) != 1:
        found = ", ".join(file.relative_to(place).as_posix() for file in files[:10]) or "none"
        if spec.bounds is not None:
            found = "they are not told to who registers models by requests"
        raise broken(
            name, f"{source!r} has {len(files)} such .tflite files ({found})", "name one: options.file"
        )
    return files[0]


def read_labels(name: str, spec: ModelSpec, file: Path, options: TFLiteOptions) -> list[str]:
    """Those of the options, else those in the file's own metadata; empty if there are none.

    Raises:
        ModelBroken: the file that the options name can't be read; or it is not beside the graph, and the
            model was registered by a request.
    """
    if isinstance(options.labels, list):
        return options.labels
    if options.labels is None:
        return _own_labels(file)
    path = Path(options.labels).expanduser()
    # Beside the graph unless it says otherwise.
    path = path if path.is_absolute() else file.parent / path
    if spec.bounds is not None and (path.parent != file.parent or path.name in ("", "..")):
        raise broken(name, "its labels are not beside the graph", "correct options.labels")
    try:
        return _lines(path.read_bytes())
    except (OSError, ValueError) as error:
        why = type(error).__name__ if spec.bounds is not None else error
        raise unusable(name, error, f"its labels can't be read ({why})", "correct options.labels") from error


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
