"""`LocalEngine`, over plain parts and over the libraries'."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from activities.backends.retrieval.local_engine import LocalEngine, open_engine
from activities.backends.retrieval.snapshots import Snapshots
from activities.retrieval_ports import Engine
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Index, Version
from tests.activities.retrieval.contract_engine import EngineContract
from tests.activities.retrieval.engine_checks import Make
from tests.activities.retrieval.plain_parts import open_plain


class TestOverPlainParts(EngineContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        async def made(index: Index, version: Version) -> Engine:
            snapshots = Snapshots(tmp_path, index.id, version.number, version.spec)
            return LocalEngine(version.spec, snapshots, open_plain)

        return made


class OverLibraries(EngineContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        async def made(index: Index, version: Version) -> Engine:
            return open_engine(tmp_path, index, version)

        return made


class TestOverFaiss(OverLibraries):
    wish: ClassVar[Json] = {"backend": "faiss"}


class TestOverScann(OverLibraries):
    wish: ClassVar[Json] = {"backend": "scann"}
