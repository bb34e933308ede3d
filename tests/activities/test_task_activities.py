"""The activities of a task; callbacks on a real HTTP server, whose receiver checks the signature."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Receiver
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.backends import webhooks
from activities.backends.memory_tasks import MemoryTaskStore
from activities.backends.webhooks import Webhooks
from activities.task import TaskActivities, Webhook
from goatherd.contracts.ids import new_id
from goatherd.contracts.task_messages import CallbackTold, FlushTask, TellCallback
from goatherd.errors import Forbidden, Invalid, Unavailable
from goatherd.security.addresses import is_public
from tests.activities.contract_task_store import check
from tests.activities.task_events import TaskScript, make_task
from tests.servers import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Site:
    """A callback. `answers`: what it says, one after the other; the last is said again."""

    url: str
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(204, {})])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=headers)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    port = free_port()
    site = Site(f"http://127.0.0.1:{port}/hook?a=1")
    app = web.Application()
    app.router.add_post("/hook", site.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield site
    await runner.cleanup()


def order(url: str, **fields: object) -> TellCallback:
    task = new_id("task")
    return TellCallback.model_validate(
        {
            "id": f"{task}-7",
            "url": url,
            "task": task,
            "owner": "ann",
            "type": "task.completed",
            "ts": datetime(2026, 11, 22, tzinfo=UTC),
            "data": {"id": task, "title": "Ä"},
        }
        | fields
    )


async def tell(store: MemoryTaskStore, told: TellCallback, sender: Webhooks | None = None) -> CallbackTold:
    activities = TaskActivities(store, sender or Webhooks(allow_private=True))
    return await ActivityEnvironment().run(activities.tell_callback, told)


async def test_flush_writes_the_task_and_its_events_however_often() -> None:
    store = MemoryTaskStore()
    task = make_task()
    script = TaskScript(task.id)
    script.create()
    flush = FlushTask(task=task, id=task.id, events=script.events, summary=script.summary)
    for _ in range(2):
        await ActivityEnvironment().run(TaskActivities(store).flush, flush)
    await check(store, script)
    stored = await store.task(task.id)
    assert stored is not None
    assert stored.version == 1


async def test_flush_that_can_pass_later_is_retried() -> None:
    class Down(MemoryTaskStore):
        async def apply(self, changes: object) -> None:
            raise Unavailable("the store is away")

    script = TaskScript()
    script.create()
    flush = FlushTask(id=script.task, events=script.events, summary=script.summary)
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(TaskActivities(Down()).flush, flush)
    assert (raised.value.type, raised.value.non_retryable) == ("unavailable", False)


async def test_callback_is_signed_as_standard_webhooks_says(site: Site) -> None:
    store = MemoryTaskStore()
    told = order(site.url)
    await store.put_secret(told.task, SECRET)
    assert await tell(store, told) == CallbackTold(status=204)
    [(headers, body)] = site.got
    read = Receiver(SECRET).verify(body, headers)
    assert read == {"type": "task.completed", "timestamp": "2026-11-22T00:00:00.000Z", "data": told.data}
    assert json.loads(body) == read
    assert headers["webhook-id"] == told.id
    assert headers["Host"] == site.url.split("/")[2]
    assert headers["Content-Type"] == "application/json"


async def test_callback_without_a_secret_is_told_unsigned(site: Site) -> None:
    assert await tell(MemoryTaskStore(), order(site.url)) == CallbackTold(status=204)
    [(headers, _)] = site.got
    assert "webhook-id" in headers
    assert "webhook-signature" not in headers


async def test_signature_is_that_of_the_published_example() -> None:
    at = datetime.fromtimestamp(1614265330, UTC)
    webhook = Webhook("msg_p5jXN8AQM9LWM0D4loKWxJek", "", b'{"test": 2432232314}', SECRET)
    assert webhooks._signature(webhook, at) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410])
async def test_what_would_be_the_same_again_is_given_up(site: Site, status: int) -> None:
    site.answers = [(status, {"location": site.url})]
    told = await tell(MemoryTaskStore(), order(site.url))
    assert told == CallbackTold(status=status, error=f"The callback answered {status}.")
    assert len(site.got) == 1


@pytest.mark.parametrize(
    ("status", "retry_after", "wait"),
    [
        (500, None, None),
        (503, "7", 7),
        (429, "0.5", 0.5),
        (408, "soon", None),
        (425, "-3", 0),
        (503, "1e9", 3600),
    ],
)
async def test_what_may_pass_is_tried_again_when_they_say(
    site: Site, status: int, retry_after: str | None, wait: float | None
) -> None:
    site.answers = [(status, {} if retry_after is None else {"retry-after": retry_after})]
    told = await tell(MemoryTaskStore(), order(site.url))
    said = f"The callback answered {status}."
    assert told == CallbackTold(status=status, error=said, again=True, retry_after_s=wait)


async def test_retry_after_may_be_a_date(site: Site) -> None:
    site.answers = [(503, {"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=1))})]
    delay = (await tell(MemoryTaskStore(), order(site.url))).retry_after_s
    assert delay is not None
    assert 50 < delay <= 60


async def test_nobody_there_is_tried_again() -> None:
    told = await tell(MemoryTaskStore(), order(f"http://127.0.0.1:{free_port()}/"))
    assert (told.again, told.retry_after_s) == (True, None)


async def test_slow_callback_is_tried_again(site: Site) -> None:
    with pytest.raises(Unavailable):
        await Webhooks(allow_private=True, wait_s=0).send(Webhook("id", site.url, b"{}"))


async def test_secret_that_is_none_is_not_told(site: Site) -> None:
    store = MemoryTaskStore()
    told = order(site.url)
    await store.put_secret(told.task, "whsec_not base64: ÄÖÜ")
    answer = await tell(store, told)
    assert answer == CallbackTold(error="The callback's secret can't be used.")
    assert site.got == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
async def test_callback_to_a_private_address_is_refused(site: Site, host: str) -> None:
    url = site.url.replace("127.0.0.1", host)
    told = await tell(MemoryTaskStore(), order(url), Webhooks())
    assert told == CallbackTold(error="The callback's address is none that webhooks may be sent to.")
    assert site.got == []


class TwoFaced:
    """A name server that says something else the second time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[object]:
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(2, 1, 6, "", (address, port)) for address in addresses]


async def test_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = TwoFaced(["93.184.215.14", "10.0.0.1"])
    monkeypatch.setattr(webhooks, "_resolve", names.getaddrinfo)
    with pytest.raises(Forbidden):
        await Webhooks().send(Webhook("id", "http://example.org/", b"{}"))


async def test_connects_to_the_address_that_was_looked_at(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked at, and private a moment later, is asked once."""
    names = TwoFaced(["127.0.0.1"], ["203.0.113.1"])
    monkeypatch.setattr(webhooks, "_resolve", names.getaddrinfo)
    url = site.url.replace("127.0.0.1", "rebound.example")
    answer = await Webhooks(allow_private=True).send(Webhook("id", url, b"{}"))
    assert (answer.status, names.asked) == (204, 1)
    [(headers, _)] = site.got
    assert headers["Host"].startswith("rebound.example:")


async def test_tls_is_asked_for_by_the_name_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_resolve", TwoFaced(["127.0.0.1"]).getaddrinfo)
    hello = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hello
        hello = await reader.read(4_096)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable):
        await Webhooks(allow_private=True).send(Webhook("id", f"https://rebound.example:{port}/", b"{}"))
    assert b"rebound.example" in hello
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("url", ["ftp://example.org/", "http:///path", "nothing", "http://host:port/"])
async def test_address_that_makes_no_sense_is_invalid(url: str) -> None:
    with pytest.raises(Invalid):
        await Webhooks().send(Webhook("id", url, b"{}"))


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.9.9.9", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::", "::1", "fe80::1",
        "fc00::1", "fd12::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_known(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public_is_known(address: str) -> None:
    assert is_public(ip_address(address))
