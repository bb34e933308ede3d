"""Numbers that JSON can have and nothing behind us can: of models' inputs and parameters, jobs and chats."""

from __future__ import annotations

import httpx
import pytest

from tests.api.inference_house import inference_house

LARGE = "1" + "0" * 40
VECTORS = "/models/feature-extraction"


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (VECTORS, f'{{"inputs": {LARGE}}}', "inputs"),
        (VECTORS, f'{{"inputs": ["a", {LARGE}]}}', "inputs"),
        (VECTORS, f'{{"inputs": "a", "dimensions": {LARGE}}}', "dimensions"),
        (VECTORS, f'{{"inputs": "a", "parameters": {{"dimensions": {LARGE}}}}}', "parameters/dimensions"),
        ("/models/text-generation", f'{{"inputs": "a", "parameters": {{"top_k": {LARGE}}}}}', "top_k"),
        (
            "/inference/job",
            f'{{"model": "feature-extraction", "inputs": "a", "metadata": {{"n": {LARGE}}}}}',
            "/metadata/n",
        ),
        (
            "/inference/job",
            '{"model": "feature-extraction", "inputs": "a", "metadata": {"n": 1e999}}',
            "/metadata/n",
        ),
        ("/chat", f'{{"generation": {{"top_k": {2**31 + 1}}}}}', "/generation/top_k"),
        ("/v1/embeddings", f'{{"model": "feature-extraction", "input": "a", "dimensions": {LARGE}}}', "dim"),
    ],
)
async def test_number_of_more_than_64_bits_is_pointed_at(path: str, body: str, where: str) -> None:
    async with inference_house() as house, httpx.AsyncClient(base_url=house.url) as http:
        answer = await http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
        assert where in answer.text
        assert house.inference.calls == []


async def test_number_of_a_form_is_refused_too() -> None:
    async with inference_house() as house, httpx.AsyncClient(base_url=house.url) as http:
        answer = await http.post(
            "/models/image-classification",
            files={"inputs": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")},
            data={"parameters": f'{{"top_k": {LARGE}}}'},
        )
        assert answer.status_code == 422, answer.text
        assert "parameters" in answer.text
        assert house.inference.calls == []
