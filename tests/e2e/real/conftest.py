"""One stack for all files of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import torch
from huggingface_hub import AsyncInferenceClient

from activities.backends.media.audio import Sound
from tests.activities.media.files import sound_file
from tests.e2e.real import library
from tests.e2e.real.answers import SENTENCE
from tests.e2e.real.house import House, house


@pytest.fixture(scope="package")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    async with house(tmp_path_factory.mktemp("real")) as made:
        yield made
    torch.set_num_threads(threads)


@pytest.fixture
async def http(served: House) -> AsyncIterator[httpx.AsyncClient]:
    async with served.http() as client:
        yield client


@pytest.fixture(scope="package")
async def speech(served: House) -> bytes:
    """A sentence at the rate that models hear at, so that nothing is resampled."""
    async with AsyncInferenceClient(model=served.at("joe-us")) as client:
        said = await client.text_to_speech(SENTENCE, extra_body={"seed": 1})
    samples, rate = library.samples(said, library.HEARD_AT)
    return sound_file(Sound(samples, rate))
