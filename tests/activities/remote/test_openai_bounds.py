"""How far the provider `openai` goes: never where a server sends it, and to public addresses alone for a
model that a request has registered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from activities.backends import public_http
from activities.backends.openai_models import OpenAIProvider
from activities.inference_ports import Made
from goatherd.contracts.inference import Bounds, ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Unavailable
from tests.activities.remote.loading import item, loaded, run
from tests.activities.remote.serving import serving

TASK = Task.TEXT_TO_SPEECH
WAV = b"RIFF\x24\x00\x00\x00WAVE"


class Site:
    """Speaks, or sends those who ask elsewhere."""

    def __init__(self) -> None:
        self.elsewhere: str | None = None
        self.hosts: list[str] = []
        self.url = ""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/audio/speech")(self.speak)
        app.get("/hidden")(self.hidden)
        return app

    async def speak(self, request: Request) -> Any:
        self.hosts.append(request.headers["host"])
        if self.elsewhere is not None:
            return RedirectResponse(self.elsewhere, 303)
        return Response(WAV, media_type="audio/wav")

    async def hidden(self) -> str:
        self.hosts.append("hidden")
        return "hidden"

    def spec(self, bounds: Bounds | None, host: str = "127.0.0.1") -> ModelSpec:
        url = self.url.replace("127.0.0.1", host)
        options = {"base_url": f"{url}/v1", "api_key": None}
        return ModelSpec(provider="openai", source="tts", task=TASK, options=options, bounds=bounds)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    async with serving(site.app) as site.url:
        yield site


async def asked(spec: ModelSpec) -> Any:
    async with loaded(OpenAIProvider(), spec) as model:
        [result] = await run(model, TASK, item(TASK, "hi"))
    return result


@pytest.mark.parametrize("bounds", [None, Bounds(private=True)])
async def test_redirect_is_not_followed(site: Site, bounds: Bounds | None) -> None:
    site.elsewhere = f"{site.url}/hidden"
    result = await asked(site.spec(bounds))
    assert isinstance(result, Unavailable)
    assert result.code == "model-unavailable"
    assert "redirect" in result.message
    assert "hidden" not in result.message
    assert "hidden" not in site.hosts


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
async def test_model_of_a_request_is_not_asked_at_a_private_address(site: Site, host: str) -> None:
    result = await asked(site.spec(Bounds(), host))
    assert isinstance(result, Unavailable)
    assert result.code == "model-unavailable"
    assert "public Internet" in result.message
    assert site.hosts == []


@pytest.mark.parametrize("bounds", [None, Bounds(private=True)])
async def test_private_address_is_asked_where_the_settings_allow(site: Site, bounds: Bounds | None) -> None:
    assert isinstance(await asked(site.spec(bounds)), Made)


async def test_address_that_was_looked_at_is_asked_by_the_name_of_the_url(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_http, "is_public", lambda _: True)
    assert isinstance(await asked(site.spec(Bounds(), "localhost")), Made)
    [host] = site.hosts
    assert host.startswith("localhost:")
