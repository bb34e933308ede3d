"""What Elasticsearch is told by its clients, and what its errors mean to us."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from activities.backends.retrieval.elastic_client import (
    IndexLost,
    connect,
    connect_blocking,
    elastic_errors,
    refusal,
)
from goatherd.errors import Invalid, ModelBroken, Unavailable
from goatherd.settings import Settings
from tests.activities.remote.serving import serving
from tests.servers import free_port

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD"]


class Server:
    """Answers everything in the same way, and notes what it was told."""

    def __init__(self, status: int = 200, body: Any = None, product: str = "Elasticsearch") -> None:
        self.headers: list[dict[str, str]] = []

        async def answer(request: Request) -> Response:
            self.headers.append(dict(request.headers))
            return Response(
                json.dumps(body if body is not None else {}),
                status,
                {"X-Elastic-Product": product},
                "application/json",
            )

        self.app = Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])


async def test_requests_are_those_of_version_8() -> None:
    server = Server(body={"hits": {"hits": []}, "items": [], "responses": []})
    async with serving(server.app) as url:
        client = connect(url)
        await client.search(index="x", query={"match_all": {}})
        await client.bulk(operations=[{"index": {"_index": "x"}}, {}])
        await client.info()
        await client.close()
    types = [
        value for one in server.headers for name, value in one.items() if name in ("accept", "content-type")
    ]
    assert len(types) == 5
    assert all("compatible-with=8" in value for value in types)


async def test_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "goatherd")
    server = Server()
    async with serving(server.app) as url:
        client = connect(url, "c2VjcmV0OmtleQ==")
        await client.info()
        await client.close()
        named = connect(url.replace("//", "//u:hunter2@"))
        await named.info()
        await named.close()
    key, password = (one["authorization"] for one in server.headers)
    assert key == "ApiKey c2VjcmV0OmtleQ=="
    assert password == "Basic dTpodW50ZXIy"
    shown = Settings(elasticsearch="http://u:hunter2@host:9200", elasticsearch_api_key="c2VjcmV0OmtleQ==")
    for text in (repr(shown), str(shown), repr(client), repr(named), caplog.text):
        assert "c2VjcmV0" not in text
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("status", "kind", "error", "said"),
    [
        (400, "parsing_exception", Invalid, "parsing_exception"),
        (401, "security_exception", Unavailable, "GOATHERD_ELASTICSEARCH_API_KEY"),
        (403, "security_exception", Unavailable, "GOATHERD_ELASTICSEARCH_API_KEY"),
        (403, "cluster_block_exception", Unavailable, "disk"),
        (404, "index_not_found_exception", IndexLost, "filled again"),
        (429, "es_rejected_execution_exception", Unavailable, "too much"),
        (429, "cluster_block_exception", Unavailable, "disk"),
        (500, "illegal_state_exception", Unavailable, "see its log"),
        (503, "no_shard_available_action_exception", Unavailable, "see its log"),
    ],
)
async def test_refusal_says_what_to_do(status: int, kind: str, error: type[Exception], said: str) -> None:
    body = {"error": {"type": kind, "reason": "because", "root_cause": [{"type": kind, "reason": "because"}]}}
    async with serving(Server(status, body).app) as url:
        client = connect(url)
        with pytest.raises(error, match=said) as raised, elastic_errors():
            await client.search(index="x", query={"match_all": {}})
        await client.close()
        assert url.partition("//")[2] not in str(raised.value)


@pytest.mark.parametrize("body", [None, "", "no JSON", {}, {"error": "text"}, {"error": {"root_cause": []}}])
def test_refusal_without_an_explanation_is_told_all_the_same(body: Any) -> None:
    assert isinstance(refusal(502, body), Unavailable)


async def test_what_is_no_elasticsearch_is_told() -> None:
    async with serving(Server(product="Other").app) as url:
        client = connect(url)
        with pytest.raises(ModelBroken, match="not Elasticsearch"), elastic_errors():
            await client.search(index="x", query={"match_all": {}})
        await client.close()


async def test_server_that_is_away_is_told_without_its_address(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    url = f"http://u:hunter2@127.0.0.1:{port}"
    client = connect(url)
    with pytest.raises(Unavailable, match="GOATHERD_ELASTICSEARCH") as raised, elastic_errors():
        await client.info()
    await client.close()
    with (
        connect_blocking(url) as blocking,
        pytest.raises(Unavailable, match="GOATHERD_ELASTICSEARCH") as again,
        elastic_errors(),
    ):
        blocking.info()
    for text in (str(raised.value), str(again.value), caplog.text):
        assert str(port) not in text
        assert "hunter2" not in text
