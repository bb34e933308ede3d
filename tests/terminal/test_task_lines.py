"""What a line of a file of subtasks may be, and how it is cut."""

from __future__ import annotations

import io
import json

import pytest

from goatherd.terminal._task_lines import BATCH_BYTES, BATCH_LINES, BadLine, batches, check, parse


@pytest.mark.parametrize(
    ("line", "subtask"),
    [
        (b'"a sentence"\n', {"input": "a sentence"}),
        (b'{"text": "a"}\n', {"input": {"text": "a"}}),
        (b"[1, null]\n", {"input": [1, None]}),
        (b'{"input": {"x": 1}, "requires": ["gpu"]}\r\n', {"input": {"x": 1}, "requires": ["gpu"]}),
        (b"\xef\xbb\xbf7\n", {"input": 7}),
        (b"  \n", None),
    ],
)
def test_a_line_with_input_says_it_all_and_any_other_is_the_input(line: bytes, subtask: object) -> None:
    assert parse(line, 1) == subtask


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"input": 1,', "it is not JSON"),
        (b"NaN", "NaN is not a JSON value"),
        (b'"\xff"', "it is not UTF-8 (at byte 1)"),
        (b'{"input": 1, "expected": 2}', "a subtask has no 'expected'"),
        (b'{"input": 1, "priority": 9}', "`priority`"),
        (b'{"input": 1, "priority": "3"}', "`priority`"),
        (b'"' + b"x" * 1_000_000 + b'"', "it has 1,000,002 bytes"),
        (b'{"input": 1, "depends_on": ["nobody"]}', "it depends on 'nobody'"),
        (b'{"input": 1, "key": "first"}', "line 1 has the `key` 'first' already"),
        (b'{"input": 1, "key": "me", "depends_on": ["me"]}', "it depends on 'me'"),
        (b"9223372036854775808", "a number has more than 64 bits: send it as a text"),
        (b'{"input": {"n": [-9223372036854775809]}}', "a number has more than 64 bits"),
        (b"1" * 5_000, "a number has more than 64 bits"),
        (b"[1e999]", "a number is too large"),
        (b"[" * 65 + b"]" * 65, "it is nested more than 64 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "it is nested more than 64 deep"),
        (rb'"\ud800"', "half of a surrogate pair"),
        (b"[" + b",".join([b"1e15"] * 100_000) + b"]", "bytes as it is sent"),
        (b'{"inputs": {"a": 1}}', "it has 'inputs', which is not 'input'"),
        (b'{"Input": 1, "title": "t"}', 'write {"input": {'),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: bytes, why: str) -> None:
    file = io.BytesIO(b'{"input": 0, "key": "first"}\n\n' + line + b"\n4\n")
    with pytest.raises(BadLine) as refused:
        check(file)
    assert str(refused.value).startswith("Line 3: ")
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        b"[9223372036854775807, -9223372036854775808, 1e300]",
        b"[" * 64 + b"]" * 64,
        rb'"\ud83d\udc10"',
        b'{"input_text": "a", "output": "b"}',
    ],
)
def test_what_the_api_takes_is_a_subtask(line: bytes) -> None:
    checked = check(io.BytesIO(line))
    assert (checked.lines, checked.doubt) == (1, None)


def test_all_bad_lines_are_named_up_to_twenty_and_then_counted() -> None:
    lines = [b"{", b'{"input": 1, "depends_on": ["of-a-bad-line"]}', *[b"NaN"] * 30]
    with pytest.raises(BadLine) as refused:
        check(io.BytesIO(b"\n".join(lines)))
    told = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in told[:3]] == ["Line 1", "Line 3", "Line 4"]
    assert len(told) == 21
    assert told[-1] == "11 more lines are wrong."


def test_the_same_lines_give_the_same_batches_and_other_places_other_ones() -> None:
    lines = b"".join(b'"%d"\n' % number for number in range(BATCH_LINES * 2 + 3))
    once, again = (list(batches(io.BytesIO(lines))) for _ in range(2))
    assert [len(batch.subtasks) for batch in once] == [BATCH_LINES, BATCH_LINES, 3]
    assert [batch.digest for batch in once] == [batch.digest for batch in again]
    assert [(batch.first_line, batch.last_line) for batch in once][1:] == [(1001, 2000), (2001, 2003)]
    moved = list(batches(io.BytesIO(b"\n" + lines)))
    assert not {batch.digest for batch in moved} & {batch.digest for batch in once}


def test_a_batch_is_not_larger_than_the_api_takes() -> None:
    line = json.dumps("x" * 300_000).encode() + b"\n"
    cut = list(batches(io.BytesIO(line * 7)))
    assert [len(batch.subtasks) for batch in cut] == [2, 2, 2, 1]
    assert all(len(json.dumps(batch.subtasks)) <= BATCH_BYTES for batch in cut)
