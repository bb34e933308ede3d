from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from goatherd.errors import DeadlineExceeded, GoatherdError, Unavailable
from tests.api.conftest import House, check_problem

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"{'a': 1}",
        b"nonsense",
        b'{"title": NaN}',
        b'{"generation": {"temperature": Infinity}}',
        b'{"generation": {"temperature": -Infinity}}',
        b'{"title": "\xff\xfe"}',
        b'{"title": "\x00"}',
        b'\xef\xbb\xbf{"title": "bom"}',
        b'{"title": "a"} trailing',
        b"[" * 5_000 + b"]" * 5_000,
        b"[" * 300 + b"]" * 300,
        b'{"generation": {"seed": ' + b"9" * 5_000 + b"}}",
        b" ",
    ],
)
async def test_what_is_not_json_is_malformed(house: House, content: bytes) -> None:
    answer = await house.http.post("/chat", content=content, headers=JSON)
    check_problem(answer, 400, "malformed-json")


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (b'{"title": "\\ud800"}', "/title"),
        (b'{"metadata": {"a": "x\\udfff"}}', "/metadata/a"),
        (b'{"labels": ["a", "\\ud800x"]}', "/labels/1"),
        (b'{"\\ud800": 1}', ""),
        (b'{"metadata": {"\\udc00": "x"}}', "/metadata"),
    ],
)
async def test_half_a_character_is_invalid(house: House, content: bytes, pointer: str) -> None:
    answer = await house.http.post("/chat", content=content, headers=JSON)
    assert check_problem(answer, 422, "invalid")["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "a \ud83d\udc10 \x00 \u2028", "Infinity\\ud800"])
async def test_any_text_is_fine_within_a_string(house: House, text: str) -> None:
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    session = await house.session(title=text)
    assert (await house.http.get(f"/chat/{session}")).json()["title"] == text


async def test_of_a_key_given_twice_the_last_counts(house: House) -> None:
    answer = await house.http.post("/chat", content=b'{"title": "a", "title": "b"}', headers=JSON)
    assert (answer.status_code, answer.json()["title"]) == (201, "b")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", ";"]
)
async def test_a_body_has_to_say_that_it_is_json(house: House, kind: str) -> None:
    answer = await house.http.post("/chat", content=b"{}", headers={"content-type": kind})
    check_problem(answer, 415, "unsupported-media-type")


async def test_json_may_name_its_charset(house: House) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert (await house.http.post("/chat", content=b"{}", headers=headers)).status_code == 201


async def test_a_body_that_is_declared_too_large_is_refused(house: House) -> None:
    answer = await house.http.post("/chat", content=b"x" * (20 << 20), headers=JSON)
    check_problem(answer, 413, "body-too-large")
    assert "connection" not in answer.headers


async def test_a_body_that_turns_out_too_large_is_refused(house: House) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 1
            yield b"x" * (1 << 16)

    answer = await house.http.post("/chat", content=chunks(), headers=JSON)
    check_problem(answer, 413, "body-too-large")
    assert sent == 40


async def test_who_waits_for_leave_to_send_too_much_does_not_get_it(house: House) -> None:
    headers = {**JSON, "expect": "100-continue", "content-length": str(20 << 20)}

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    answer = await house.http.post("/chat", content=never(), headers=headers)
    check_problem(answer, 413, "body-too-large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/chat", "GET, POST"),
        ("PATCH", "/chat/x", "DELETE, GET"),
        ("TRACE", "/chat/x/message", "GET, POST"),
        ("POST", "/healthz", "GET"),
    ],
)
async def test_a_method_that_is_not_taken_is_told_which_are(
    house: House, method: str, path: str, allowed: str
) -> None:
    answer = await house.http.request(method, path)
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/nothing", "/chat/", "/chat//message", "/chats", "/%00"])
async def test_a_path_that_leads_nowhere_is_not_found(house: House, path: str) -> None:
    problem = check_problem(await house.http.get(f"{path}?secret=1"), 404, "route-not-found")
    assert "secret" not in str(problem)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Unavailable("Down.", retry_after_s=3), 503, "unavailable"),
        (Unavailable("Full.", code="storage-full", retry_after_s=30), 503, "storage-full"),
        (DeadlineExceeded("Late."), 504, "deadline-exceeded"),
    ],
)
async def test_a_part_that_fails_is_named_with_when_to_come_back(
    house: House, fault: GoatherdError, status: int, code: str
) -> None:
    house.service.fault = fault
    answer = await house.http.post("/chat")
    check_problem(answer, status, code)
    if isinstance(fault, Unavailable):
        assert answer.headers["retry-after"] == str(round(fault.retry_after_s))


@pytest.mark.parametrize(
    "fault", [RuntimeError("secret"), GoatherdError("secret", code="odd"), KeyError("secret")]
)
async def test_a_fault_of_ours_tells_nothing(house: House, fault: Exception) -> None:
    house.service.fault = fault
    answer = await house.http.post("/chat")
    check_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "odd" not in answer.text
