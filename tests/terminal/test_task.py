"""`goatherd task` against a served stand-in: creating, working, watching, and what is put out."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from goatherd.terminal._api import IN_USE, Refused
from goatherd.terminal._screen import Pipe
from goatherd.terminal._task_api import AssignmentView, TaskApi
from goatherd.terminal._task_bar import LineMeter, Rate, duration
from goatherd.terminal._task_command import Program
from goatherd.terminal._task_create import Order, create
from goatherd.terminal._task_lines import BadLine
from goatherd.terminal._task_person import Person
from goatherd.terminal._task_show import list_tasks, results
from goatherd.terminal._task_watch import JsonView, LineView, Sight, watch
from goatherd.terminal._task_work import Answering, Completed, Left, Outcome, Terms, Work
from tests.terminal.conftest import served
from tests.terminal.server import problem
from tests.terminal.task_server import TASK, FakeTasks

ORDER = Order({"title": "Labels"}, [])


class Desk:
    """A client of the stand-in, and what it was told."""

    def __init__(self, fake: FakeTasks, http: httpx.AsyncClient) -> None:
        self.fake = fake
        self.out, self.err = io.StringIO(), io.StringIO()
        self.screen = Pipe(self.out, self.err)
        self.api = TaskApi(http, notice=self.screen.notice, patience_s=5.0, retry_s=0.01)

    async def create(self, text: str, order: Order = ORDER) -> str:
        meter = LineMeter(self.screen.notice)
        return (await create(self.api, self.screen, meter, io.BytesIO(text.encode()), order)).id

    def work(self, answering: Answering, *, lease_s: float | None = None) -> Work:
        return Work(self.api, self.screen, Terms(TASK, "ada", [], lease_s=lease_s), answering)

    def person(self, *lines: str, editor: str | None = None) -> Person:
        waiting = iter([*lines, None])

        async def read() -> str | None:
            return next(waiting)

        return Person(self.screen, read, editor=editor)


@asynccontextmanager
async def _desk() -> AsyncIterator[Desk]:
    fake = FakeTasks()
    async with (
        served(fake) as url,  # type: ignore[arg-type]
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        yield Desk(fake, http)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with _desk() as desk:
        yield desk


def program(code: str, **more: Any) -> Program:
    return Program([sys.executable, "-c", code], TASK)


# -- create


async def test_the_same_file_again_adds_nothing_twice(desk: Desk) -> None:
    lines = "".join(f'"{number}"\n' for number in range(2_500))
    assert await desk.create(lines) == TASK
    keys = list(desk.fake.keys)
    assert len(desk.fake.items) == 2_500
    assert await desk.create(lines) == TASK
    assert len(desk.fake.items) == 2_500
    assert desk.fake.keys == keys * 2
    assert "2,500 of 2,500 subtasks" in desk.err.getvalue()


async def test_what_was_broken_off_goes_on_where_it_stopped(desk: Desk) -> None:
    lines = "".join(f'"{number}"\n' for number in range(1_500))
    desk.fake.failures = [problem(503, "unavailable", "A moment."), problem(409, "task-closed", "Closed.")]
    with pytest.raises(Refused, match="Lines 1 to 1,000: Closed"):
        await desk.create(lines)
    assert "goes on where it stopped" in desk.err.getvalue()
    await desk.create(lines)
    assert [item.spec["input"] for item in desk.fake.items] == [str(number) for number in range(1_500)]


async def test_a_request_that_is_under_way_is_waited_for(desk: Desk) -> None:
    desk.fake.failures = [problem(409, IN_USE, "Still at it.")] * 3
    await desk.create('"one"\n')
    assert len(desk.fake.items) == 1


async def test_a_key_in_use_is_asked_for_longer_than_patience_lasts(desk: Desk) -> None:
    desk.api.patience_s = 0.0
    desk.fake.failures = [problem(409, IN_USE, "Still at it.", **{"retry-after": "1"})]
    begun = asyncio.get_running_loop().time()
    await desk.create('"one"\n')
    assert asyncio.get_running_loop().time() - begun >= 1
    assert len(desk.fake.items) == 1


@pytest.mark.parametrize("text", ["", "\n  \n"])
async def test_a_file_without_subtasks_makes_no_task(desk: Desk, text: str) -> None:
    with pytest.raises(BadLine, match="there is no subtask, and nothing is sent"):
        await desk.create(text)
    assert desk.fake.settings is None


async def test_what_may_be_meant_otherwise_is_said(desk: Desk) -> None:
    await desk.create('{"text": "a", "label": "b"}\n{"text": "c", "label": "d"}\n')
    said = desk.err.getvalue()
    assert "no 'input': all of it is taken as the input (2 lines are like that)" in said


async def test_another_file_other_settings_and_new_are_other_tasks(desk: Desk) -> None:
    await desk.create("1\n")
    await desk.create("2\n")
    await desk.create("1\n", Order({"title": "Labels", "overlap": 3}, []))
    await desk.create("1\n", Order({"title": "Labels"}, [], anew=True))
    created = [key for key in desk.fake.keys if key.startswith("create-")]
    assert len(set(created)) == 4


async def test_a_bad_line_is_told_before_anything_is_sent(desk: Desk) -> None:
    with pytest.raises(BadLine, match="Line 2: it is not JSON"):
        await desk.create("1\n{\n")
    assert desk.fake.settings is None


async def test_keys_of_earlier_batches_become_ids(desk: Desk) -> None:
    first = json.dumps({"input": "a", "key": "a"})
    filler = "0\n" * 999
    last = json.dumps({"input": "b", "depends_on": ["a"], "requires": ["gpu"]})
    await desk.create(f"{first}\n{filler}{last}\n", Order({"title": "t"}, ["de"]))
    spec = desk.fake.items[-1].spec
    assert spec["depends_on"] == [desk.fake.items[0].id]
    assert spec["requires"] == ["gpu", "de"]
    assert desk.fake.items[0].spec["requires"] == ["de"]


# -- work, by a person


async def test_a_person_answers_fails_and_skips(desk: Desk) -> None:
    desk.fake.put("one", {"two": 2}, "three")
    person = desk.person("", '{"label": "a"}', "/what", "/fail", "/fail can't read it", "plain words")
    await desk.work(person).run()
    assert [item.status for item in desk.fake.items] == ["completed", "failed", "completed"]
    assert [item.result for item in desk.fake.items] == [{"label": "a"}, None, "plain words"]
    assert desk.fake.items[1].error == {"code": "given-up", "message": "can't read it"}
    assert '"two": 2' in desk.out.getvalue()
    assert "There is no /what" in desk.err.getvalue()
    assert "the task is failed" in desk.err.getvalue()


async def test_what_is_skipped_comes_again_only_after_all_others(desk: Desk) -> None:
    desk.fake.put("one", "two")
    await desk.work(desk.person("/skip", "second", "first")).run()
    assert [item.result for item in desk.fake.items] == ["first", "second"]


async def test_the_end_of_the_input_gives_it_back(desk: Desk) -> None:
    desk.fake.put("one")
    await desk.work(desk.person()).run()
    assert desk.fake.leased() == []
    assert desk.fake.items[0].status == "pending"


async def test_an_answer_can_be_written_in_an_editor(desk: Desk, tmp_path: Any) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys; from pathlib import Path; path = Path(sys.argv[1]); text = path.read_text()\n"
        "assert 'look at this' in text; path.write_text('[1,\\n2]\\n' + text)\n"
    )
    desk.fake.put("look at this")
    await desk.work(desk.person("e", editor=f"{sys.executable} {editor}")).run()
    assert desk.fake.items[0].result == [1, 2]


async def test_heartbeats_go_on_while_a_person_thinks(desk: Desk) -> None:
    desk.fake.put("one")

    async def thinks(assignment: AssignmentView) -> Outcome:
        for _ in range(3):
            await desk.fake.beaten.acquire()
        return Completed("at last")

    await desk.work(thinks, lease_s=0.03).run()
    assert desk.fake.items[0].result == "at last"


async def test_a_lost_lease_ends_the_work_and_it_is_taken_anew(desk: Desk) -> None:
    desk.fake.put("one")
    desk.fake.lose = True
    attempts: list[int] = []

    async def answer(assignment: AssignmentView) -> Outcome:
        attempts.append(assignment.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return Completed("mine")

    await desk.work(answer, lease_s=0.03).run()
    assert attempts == [1, 2]
    assert "is over. The lease is over: expired." in desk.err.getvalue()
    assert "release 1" not in desk.fake.calls


async def test_a_cancelled_task_ends_the_work(desk: Desk) -> None:
    desk.fake.put("one")
    desk.fake.cancelling = True
    await desk.work(lambda assignment: asyncio.Event().wait(), lease_s=0.03).run()  # type: ignore[arg-type, return-value]
    assert "The task is being cancelled." in desk.err.getvalue()
    assert "release 1" not in desk.fake.calls


async def test_stopping_gives_back_what_is_held(desk: Desk) -> None:
    desk.fake.put("one", "two", "three")
    work = desk.work(lambda assignment: asyncio.Event().wait())  # type: ignore[arg-type, return-value]
    running = asyncio.create_task(work.run(2))
    while len(desk.fake.leased()) < 2:
        await desk.fake.taken.wait()
        desk.fake.taken.clear()
    work.stop()
    await running
    assert desk.fake.leased() == []
    assert sorted(desk.fake.calls) == ["release 1", "release 2"]


# -- work, when the API does not do well


async def test_a_take_whose_key_is_in_use_is_asked_for_again_under_that_key(desk: Desk) -> None:
    desk.fake.put("one")
    desk.fake.take_failures = [problem(503, "unavailable", "Gone."), *[problem(409, IN_USE, "Running.")] * 3]
    await desk.work(desk.person("answer")).run()
    assert desk.fake.items[0].result == "answer"
    assert len(set(desk.fake.take_keys[:5])) == 1


async def test_a_key_in_use_for_longer_than_any_claim_ends_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goatherd.terminal._api.IN_USE_S", 0.0)
    desk.fake.take_failures = [problem(409, IN_USE, "Running.")]
    desk.fake.put("one", "two")
    got: list[str] = []

    async def answer(assignment: AssignmentView) -> Outcome:
        got.append(assignment.input)
        return Left()

    await desk.work(answer).run()
    assert got == ["two"]
    assert len(set(desk.fake.take_keys[:2])) == 2


async def test_reports_and_releases_are_sent_again_when_they_are_told_to_wait(desk: Desk) -> None:
    desk.fake.put("one")
    desk.fake.refusals = [problem(409, IN_USE, "Running.")] * 2
    await desk.work(desk.person("/skip", "answer")).run()
    assert desk.fake.calls == ["release 1"] * 3 + ["completed 1"]
    desk.fake.put("two")
    desk.fake.refusals = [problem(409, IN_USE, "Running.")] * 2
    await desk.work(desk.person("answer")).run()
    assert desk.fake.calls[4:] == ["completed 2"] * 3
    assert desk.fake.items[1].result == "answer"


async def test_a_heartbeat_that_is_told_to_wait_does_not_end_the_work(desk: Desk) -> None:
    desk.fake.put("one")
    desk.fake.refusals = [problem(409, IN_USE, "Running.")]

    async def answer(assignment: AssignmentView) -> Outcome:
        for _ in range(2):
            await desk.fake.beaten.acquire()
        return Completed("mine")

    await desk.work(answer, lease_s=0.3).run()
    assert desk.fake.items[0].result == "mine"


async def test_what_one_slot_is_refused_for_good_ends_all_and_gives_back_what_they_have(desk: Desk) -> None:
    desk.fake.put("one", "two")
    working = asyncio.Semaphore(0)

    async def answer(assignment: AssignmentView) -> Outcome:
        working.release()
        if assignment.input == "two":
            return Completed("two")
        await asyncio.Event().wait()
        raise AssertionError

    running = asyncio.create_task(desk.work(answer).run(2))
    await working.acquire()
    desk.fake.take_failures = [problem(403, "forbidden", "Not any more.")] * 2
    with pytest.raises(Refused, match="Not any more"):
        await running
    assert "release 1" in desk.fake.calls
    assert desk.fake.leased() == []


# -- work, by a program


async def test_a_program_gets_the_input_and_its_output_is_the_result(desk: Desk) -> None:
    desk.fake.put({"n": 20}, {"n": 22})
    double = program("import json, sys; print(json.dumps(json.load(sys.stdin)['n'] * 2))")
    await desk.work(double).run(2)
    assert [item.result for item in desk.fake.items] == [40, 44]
    assert "2 completed" in desk.err.getvalue()


async def test_an_exit_code_is_a_failure_and_stderr_its_reason(desk: Desk) -> None:
    desk.fake.put("one")
    await desk.work(program("import sys; sys.exit('no goat in it')")).run()
    assert desk.fake.items[0].error == {"code": "exit-1", "message": "no goat in it"}


async def test_the_last_lines_of_stderr_are_shown_with_the_failure(desk: Desk) -> None:
    desk.fake.put("one")
    await desk.work(program("import sys; sys.exit('\\n'.join(f'line {n}' for n in range(9)))")).run()
    said = desk.err.getvalue()
    assert "failed (exit-1), now failed\n    line 4\n    line 5" in said
    assert "line 8" in said
    assert "line 3" not in said


async def test_a_program_is_ended_when_the_task_is_cancelled(desk: Desk, tmp_path: Any) -> None:
    desk.fake.put("one")
    code = (
        "import signal, sys, pathlib, time\n"
        f"mark = pathlib.Path({str(tmp_path / 'ended')!r})\n"
        "def end(*_): mark.write_text('ended'); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"pathlib.Path({str(tmp_path / 'began')!r}).touch()\n"
        "time.sleep(60)\n"
    )

    async def run(assignment: AssignmentView) -> Outcome:
        running = asyncio.ensure_future(program(code)(assignment))
        try:
            while not (tmp_path / "began").exists():  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.01)
            desk.fake.cancelling = True
            return await running
        finally:
            running.cancel()
            await asyncio.wait({running})

    await desk.work(run, lease_s=0.3).run()
    assert (tmp_path / "ended").read_text() == "ended"


# -- watch, and what is put out


async def test_watching_follows_the_events_to_the_end(desk: Desk) -> None:
    desk.fake.put("one", "two")
    lines: list[dict[str, Any]] = []
    seen = asyncio.Event()

    def write(line: str) -> None:
        lines.append(json.loads(line))
        seen.set()

    watching = asyncio.create_task(watch(desk.api, JsonView(write), TASK))
    await seen.wait()
    await desk.work(desk.person("1", "2")).run()
    assert await watching == "completed"
    assert (lines[0]["done"], lines[-1]["done"], lines[-1]["total"]) == (0, 2, 2)
    assert lines[-1]["working"] == {}


async def test_a_line_says_counts_and_is_not_told_twice(desk: Desk) -> None:
    desk.fake.put("one", "two")
    told: list[str] = []
    times = iter([0.0, 5.0, 6.0])
    view = LineView(told.append, lambda: next(times))
    sight = Sight(await desk.api.task(TASK))
    view.show(sight)
    view.show(sight)
    await desk.work(desk.person("1", "2")).run()
    sight.task = await desk.api.task(TASK)
    view.show(sight)
    assert told == [
        "pending: 0 of 2 done (0 %) · 2 pending",
        "completed: 2 of 2 done (100 %) · 2 completed",
    ]


async def test_results_are_all_pages_with_inputs(desk: Desk) -> None:
    desk.fake.put(*range(250))
    assert await results(desk.api, desk.out, TASK, status=None) == 250
    lines = [json.loads(line) for line in desk.out.getvalue().splitlines()]
    assert [line["input"] for line in lines] == list(range(250))
    assert lines[0].keys() == {"id", "number", "status", "input", "result"}


async def test_a_list_in_a_pipe_has_a_line_each(desk: Desk) -> None:
    desk.fake.put("one")
    await list_tasks(desk.api, desk.out, limit=5, status=None, label=None)
    assert desk.out.getvalue() == f"{TASK}\tpending\t0\t1\tA task\n"


def test_a_rate_is_of_the_last_half_minute() -> None:
    now = 0.0
    rate = Rate(lambda: now)
    for now in range(0, 101, 5):
        rate.at(now * 10)
    assert rate.value == 10
    assert rate.eta_s(50) == 5
    assert (duration(125), duration(3_725)) == ("2:05", "1:02:05")
