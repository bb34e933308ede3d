from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.errors import PATTERNS
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


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("content-type", "application/json; charset=latin-1", 415),
        ("content-type", 'application/json; charset="UTF-16"', 415),
        ("content-type", 'application/json; charset="UTF-8"', 201),
        ("content-type", "Application/JSON;profile=x", 201),
        ("content-encoding", "gzip", 415),
        ("content-encoding", "identity, br", 415),
        ("content-encoding", "identity", 201),
    ],
)
async def test_a_body_is_taken_only_as_it_is_and_in_utf_8(
    house: House, name: str, value: str, status: int
) -> None:
    answer = await house.http.post("/chat", content=b"{}", headers={**JSON, name: value})
    if status == 415:
        check_problem(answer, 415, "unsupported-media-type")
    else:
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([], "Has to be an object."),
        ({"title": ""}, "Must not be empty."),
        ({"title": "x" * 201}, "Has more than 200 characters."),
        ({"title": 5}, "Has to be a text."),
        ({"title": True}, "Has to be a text."),
        ({"labels": "a"}, "Has to be a list."),
        ({"labels": ["a"] * 17}, "Has more than 16 entries."),
        ({"labels": ["no spaces"]}, "1 to 64 of the characters"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "Has more than 16 entries."),
        ({"metadata": {"no spaces": "x"}}, "A key has 1 to 64 of the characters"),
        ({"metadata": 3}, "Has to be an object."),
        ({"generation": {"temperature": 3}}, "Has to be 2.0 or less."),
        ({"generation": {"temperature": "hot"}}, "Has to be a number."),
        ({"generation": {"top_p": 0}}, "Has to be more than 0.0."),
        ({"generation": {"max_tokens": 1.5}}, "Has to be a whole number."),
        ({"generation": {"seed": -1}}, "Has to be 0 or more."),
        ({"generation": {"stop": [""]}}, "Must not be empty."),
        ({"colour": "red"}, "Unknown; check the spelling."),
    ],
)
async def test_what_is_wrong_is_said_in_plain_words(house: House, body: object, detail: str) -> None:
    answer = await house.http.post("/chat", json=body)
    (error,) = check_problem(answer, 422, "invalid")["errors"]
    assert error["detail"].startswith(detail)


async def test_what_is_wrong_with_a_parameter_is_said_in_plain_words(house: House) -> None:
    query = {"limit": "many", "order": "up", "label": "!"}
    found = check_problem(await house.http.get("/chat", params=query), 422, "invalid-parameter")["errors"]
    assert {one["parameter"]: one["detail"] for one in found} == {
        "limit": "Has to be a whole number.",
        "order": "Has to be 'asc' or 'desc'.",
        "label": PATTERNS[r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$"],
    }


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
