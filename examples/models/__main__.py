"""python -m examples.models --into FOLDER [NAME …]"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from transformers.utils import logging

from examples.models.demo import DEMO, prepare
from examples.models.packages import NotInstalled

MODELS_FILE = "models.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.models", description="Prepares real models.")
    parser.add_argument("--into", type=Path, required=True, help="the folder that they are written to")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(DEMO)} (all)")
    asked = parser.parse_args()
    names = asked.names or list(DEMO)
    if unknown := [name for name in names if name not in DEMO]:
        parser.error(f"there is no {', '.join(unknown)}, but {', '.join(DEMO)}")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    into: Path = asked.into.expanduser().resolve()
    specs, missing = {}, []
    for name in names:
        print(f"{name} …", flush=True)
        try:
            specs[name] = prepare(name, into)
        except NotInstalled as error:
            print(f"  is left out: {error}", flush=True)
            missing.append(name)
    file = into / MODELS_FILE
    written = {name: spec.model_dump(mode="json", exclude_defaults=True) for name, spec in specs.items()}
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.rename(file)
    print(f"{len(specs)} models are in {file}\n\n    GOATHERD_MODELS_FILE={file} goatherd up")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
