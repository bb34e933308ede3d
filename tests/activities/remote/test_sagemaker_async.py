"""The provider `sagemaker` against moto: invocations, and asynchronous ones by way of S3."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiobotocore.session import AioSession
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from moto.server import ThreadedMotoServer

from activities.backends.sagemaker import SageMakerProvider
from activities.inference_ports import LoadedModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid, Unavailable
from tests.activities.remote.loading import item, loaded, outputs, run
from tests.activities.remote.serving import serving

TASK = Task.TEXT_CLASSIFICATION
LABEL = {"label": "POSITIVE", "score": 0.75}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "goat")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Runtime:
    """Invokes a container that is done at once: the next of `results` is where outputs are, or failures."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self.results: list[tuple[str, bytes]] = []
        self.output: str | None = None
        """Where an output is said to be, if not where it was put."""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/endpoints/{name}/async-invocations")(self.invoke)
        return app

    async def invoke(self, name: str) -> JSONResponse:
        place, data = self.results.pop(0)
        await self._s3.put_object(Bucket="results", Key=f"{name}/{place}/1", Body=data)
        headers = {
            "X-Amzn-SageMaker-OutputLocation": self.output or f"s3://results/{name}/out/1",
            "X-Amzn-SageMaker-FailureLocation": f"s3://results/{name}/failed/1",
        }
        return JSONResponse({"InferenceId": "1"}, 202, headers=headers)


class House:
    def __init__(self, url: str, s3: Any, runtime: Runtime, runtime_url: str) -> None:
        self.url = url
        self.runtime = runtime
        self._s3 = s3
        self._runtime_url = runtime_url

    async def results(self, kind: str, *results: dict[str, Any]) -> None:
        """What the next invocations give."""
        async with httpx.AsyncClient() as http:
            answer = await http.post(
                f"{self.url}/moto-api/static/sagemaker/{kind}",
                json={"results": list(results), "region": "us-east-1"},
            )
            answer.raise_for_status()

    def spec(self, **options: Any) -> ModelSpec:
        given = {"endpoint_url": self.url, "region": "us-east-1", **options}
        return ModelSpec(provider="sagemaker", source="goats", task=TASK, options=given)

    def by_s3(self, **options: Any) -> ModelSpec:
        place = {
            "input_s3": "s3://goats/in",
            "output_s3": "s3://results/goats/out",
            "failure_s3": "s3://results/goats/failed",
            "poll_s": 0.01,
            "s3_endpoint_url": self.url,
            **options,
        }
        return self.spec(**{"async": place, "endpoint_url": self._runtime_url})

    async def inputs(self) -> list[bytes]:
        return await self.kept("goats", "in/")

    async def put(self, bucket: str, key: str, data: bytes) -> None:
        await self._s3.put_object(Bucket=bucket, Key=key, Body=data)

    async def kept(self, bucket: str, prefix: str = "") -> list[bytes]:
        listed = await self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        found = []
        for one in listed.get("Contents", []):
            answer = await self._s3.get_object(Bucket=bucket, Key=one["Key"])
            async with answer["Body"] as stream:
                found.append(await stream.read())
        return found


@pytest.fixture
async def house(moto: str) -> AsyncIterator[House]:
    async with httpx.AsyncClient() as http:
        await http.post(f"{moto}/moto-api/reset")
    async with AioSession().create_client("s3", region_name="us-east-1", endpoint_url=moto) as s3:
        for bucket in ("goats", "results", "private"):
            await s3.create_bucket(Bucket=bucket)
        runtime = Runtime(s3)
        async with serving(runtime.app) as url:
            yield House(moto, s3, runtime, url)


async def texts(model: LoadedModel, *given: str) -> list[Any]:
    return list(await run(model, TASK, *(item(TASK, text) for text in given)))


async def test_invocation_is_answered(house: House) -> None:
    await house.results("endpoint-results", {"Body": json.dumps([LABEL]), "ContentType": "application/json"})
    async with loaded(SageMakerProvider(), house.spec()) as model:
        [made] = await outputs(model, TASK, item(TASK, "good"))
    assert [one.model_dump() for one in made] == [LABEL]


async def test_output_is_read_from_where_the_endpoint_says_and_nothing_is_left(house: House) -> None:
    house.runtime.results = [("out", json.dumps([LABEL]).encode())]
    async with loaded(SageMakerProvider(), house.by_s3()) as model:
        [made] = await outputs(model, TASK, item(TASK, "good"))
    assert [one.model_dump() for one in made] == [LABEL]
    assert await house.inputs() == []
    assert await house.kept("results") == []


@pytest.mark.parametrize(
    "place", ["s3://private/labels.json", "s3://results/goats/other", "s3://results/goats/out-of-others/1"]
)
async def test_output_is_neither_read_nor_deleted_where_the_options_do_not_have_it(
    house: House, place: str
) -> None:
    bucket, _, key = place.removeprefix("s3://").partition("/")
    await house.put(bucket, key, json.dumps([{"label": "hidden", "score": 1}]).encode())
    house.runtime.results, house.runtime.output = [("out", b"")], place
    async with loaded(SageMakerProvider(), house.by_s3()) as model:
        [result] = await texts(model, "good")
    assert isinstance(result, Unavailable)
    assert result.code == "model-unavailable"
    assert "output_s3" in result.message
    assert any(b"hidden" in one for one in await house.kept(bucket))
    assert await house.inputs() == []


async def test_inputs_stay_where_that_is_wished_for(house: House) -> None:
    house.runtime.results = [("out", json.dumps([LABEL]).encode())]
    async with loaded(SageMakerProvider(), house.by_s3(keep=True)) as model:
        await outputs(model, TASK, item(TASK, "good", top_k=1))
    [sent] = await house.inputs()
    assert json.loads(sent) == {"inputs": "good", "parameters": {"top_k": 1}}


async def test_failure_is_read_from_its_own_place(house: House) -> None:
    house.runtime.results = [
        ("failed", b"Received client error (400) from primary: text is too odd"),
        ("failed", b"Received server error (500) from primary: no memory"),
    ]
    async with loaded(SageMakerProvider(), house.by_s3()) as model:
        [odd] = await texts(model, "odd")
        [broken] = await texts(model, "fine")
    assert isinstance(odd, Invalid)
    assert "too odd" in odd.message
    assert isinstance(broken, Unavailable)
    assert await house.inputs() == []


async def test_bucket_that_is_not_there_makes_the_model_unavailable(house: House) -> None:
    async with loaded(SageMakerProvider(), house.by_s3(input_s3="s3://no-such-bucket/in")) as model:
        [result] = await texts(model, "a")
    assert isinstance(result, Unavailable)
    assert result.code == "model-unavailable"
