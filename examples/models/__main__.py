"""python -m examples.models --into FOLDER [--register [URL]] [NAME …]"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
from transformers.utils import logging

from examples.models.demo import DEMO, prepare
from examples.models.packages import NotInstalled
from examples.models.samples import line, write_sample
from goatherd.contracts.inference import ModelSpec

MODELS_FILE = "models.json"
URL = "http://127.0.0.1:8080"

Written = Mapping[str, Mapping[str, object]]


def main() -> None:
    asked = _asked()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    into: Path = asked.into.expanduser().resolve()
    specs, lines, missing = {}, [], []
    for name in asked.names:
        print(f"{name} …", flush=True)
        try:
            specs[name] = prepare(name, into)
        except NotInstalled as error:
            print(f"  is left out: {error}", flush=True)
            missing.append(name)
            continue
        try:
            lines.append(line(name, asked.register or URL, write_sample(name, into)))
        except NotInstalled as error:
            print(f"  there is nothing to ask it: {error}", flush=True)
    file = into / MODELS_FILE
    written = _write(specs, file)
    print(f"\n{len(specs)} models are in {file}. Start Goatherd with them, in this folder:\n")
    print(f"    GOATHERD_MODELS_FILE={shlex.quote(str(file))} {_goatherd()} up\n")
    print("One that runs has to be stopped first: it reads the file when it starts.")
    failed = _register(written, asked.register) if asked.register else False
    print("\nThen ask them:\n\n" + "\n".join(lines))
    sys.exit(1 if missing or failed else 0)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.models", description="Prepares real models.")
    parser.add_argument("--into", type=Path, required=True, help="the folder that they are written to")
    parser.add_argument(
        "--register",
        metavar="URL",
        help=f"the API of a running Goatherd ({URL}), which is told of those that a request may register",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(DEMO)} (all)")
    asked = parser.parse_args()
    asked.names = asked.names or list(DEMO)
    if unknown := [name for name in asked.names if name not in DEMO]:
        parser.error(f"there is no {', '.join(unknown)}, but {', '.join(DEMO)}")
    asked.register = asked.register and asked.register.rstrip("/")
    return asked


def _write(specs: Mapping[str, ModelSpec], file: Path) -> Written:
    written = {name: spec.model_dump(mode="json", exclude_defaults=True) for name, spec in specs.items()}
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.rename(file)
    return written


def _goatherd() -> str:
    """The command beside this Python, as it is typed here."""
    script = Path(sys.executable).with_name("goatherd")
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))


def _register(specs: Written, url: str) -> bool:
    """Whether one could not be registered."""
    failed = False
    print(f"\nAt {url}:")
    with httpx.Client(base_url=url, timeout=30.0) as http:
        for name, spec in specs.items():
            try:
                answer = http.post("/models", json={"name": name, **spec})
            except httpx.HTTPError as error:
                print(f"  nobody answers ({error})")
                return True
            failed = failed or answer.is_error
            print(f"  {name}: {_told(answer) if answer.is_error else 'registered'}")
    return failed


def _told(answer: httpx.Response) -> str:
    """Why not, as the API says."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"


if __name__ == "__main__":
    main()
