"""`goatherd up` with stand-ins for its parts: `python -m tests.embedded.run_up OPTION…`."""

from __future__ import annotations

import sys
from pathlib import Path

import goatherd.embedded.up
from goatherd.cli import app
from tests.embedded import stand_in

if __name__ == "__main__":
    goatherd.embedded.up._goatherd = lambda: [sys.executable, str(Path(stand_in.__file__))]
    app(["up", "--temporal", "127.0.0.1:1", "--mongo-uri", "mongodb://u:hunter2@127.0.0.1:2/", *sys.argv[1:]])
