"""Users' own actor types: found, checked at the start, and served by `goatherd worker`."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest
from temporalio import activity

from examples.actors.bank import AccountActor, Balance, Deposit, Open, OpenAccount
from goatherd.actors.durable import ActorSystem, DurableActor, actor
from goatherd.errors import Invalid
from goatherd.waiting import until_up
from tests.actors.durable import shared_accounts, vaults
from tests.servers import embedded_store
from tests.temporal import temporal_server
from workers.actor_types import load_actor_types
from workers.pools import OURS


def named(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> str:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return name


def test_actor_types_and_activities_of_a_module_are_found() -> None:
    types = load_actor_types(["tests.actors.durable.vaults"], OURS)
    assert types.kinds == (vaults.VaultActor, vaults.PlainVaultActor, vaults.VaultShelf)
    assert types.durable == [vaults.VaultActor, vaults.PlainVaultActor]
    assert types.activities == (vaults.ring,)
    assert not types.has_blocking


def test_what_two_modules_share_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other = named(
        monkeypatch, "other_vaults", Vault=vaults.VaultActor, ring=vaults.ring, Chat=OURS[0],
        Shared=shared_accounts.SharedAccount,
    )  # fmt: skip
    types = load_actor_types(["tests.actors.durable.vaults", other], OURS)
    assert types.kinds[3:] == (shared_accounts.SharedAccount,)
    assert types.activities == (vaults.ring,)


def test_an_activity_that_blocks_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    @activity.defn
    def block() -> None:
        """Would wait."""

    blocking = named(monkeypatch, "blocking", Vault=vaults.VaultActor, block=block)
    assert load_actor_types([blocking]).has_blocking


def test_a_module_that_is_not_there_is_told() -> None:
    with pytest.raises(Invalid, match=r"'shop\.carts', which can't be imported: ModuleNotFoundError"):
        load_actor_types(["shop.carts"])


def test_a_module_without_actor_types_is_told() -> None:
    with pytest.raises(Invalid, match="'json', which has no actor type"):
        load_actor_types(["json"])


@actor("ChatSession")
class NotOurs(DurableActor[OpenAccount]):
    """Has the name of one of ours."""


def test_a_name_that_is_taken_is_told() -> None:
    with pytest.raises(Invalid, match=r"two of the name 'ChatSession': workflows\.chat\.ChatSession and "):
        load_actor_types([__name__], OURS)


def test_a_module_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"bank_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text("from examples.actors.bank import AccountActor\n")
    (tmp_path / "workers.py").write_text("raise AssertionError('ours comes first')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_actor_types([name]).kinds == (AccountActor,)
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("sandbox", ["true", "false"])
async def test_goatherd_worker_serves_an_event_sourced_actor_of_a_user(tmp_path: Path, sandbox: str) -> None:
    async with temporal_server() as environment, embedded_store() as store:
        address = environment.client.service_client.config.target_host
        arguments = [
            *("worker", "--pool", "actors", "--actors", "examples.actors.bank"),
            *("--temporal", address, "--mongo-uri", store.uri, "--data", str(tmp_path)),
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "goatherd", *arguments,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GOATHERD_WORKFLOW_SANDBOX": sandbox},
            stdout=DEVNULL,
        )  # fmt: skip
        try:
            system = ActorSystem(environment.client)
            account = system.entity(AccountActor, f"acct-{uuid4()}")
            await account.start(OpenAccount(number="12"))

            async def opened() -> int:
                return await account.ask(Open("Ada"), id="open", timeout_s=15.0)

            assert await until_up("the worker", opened) == 0
            assert await account.ask(Deposit(5)) == 5
            await environment.client.get_workflow_handle(account.id).terminate()
            other = system.entity(AccountActor, f"acct-{uuid4()}")
            assert await other.ask(Balance(), start=OpenAccount(number="12")) == 5
        finally:
            process.kill()
            await process.wait()


async def test_goatherd_worker_says_in_one_line_what_it_cannot_serve(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "goatherd", "worker", "--pool", "actors", "--actors", json.dumps(["no.such"]),
        *("--temporal", "127.0.0.1:1", "--mongo-uri", "mongodb://127.0.0.1:1", "--data", str(tmp_path)),
        stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    _, told = await process.communicate()
    assert process.returncode == 1
    assert told.decode().startswith("GOATHERD_ACTORS names 'no.such', which can't be imported")
