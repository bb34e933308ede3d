"""What ingestion has in hand, and what comes next."""

from __future__ import annotations

from goatherd.contracts.retrieval import IndexSpec, Version, VersionWork
from goatherd.payloads import utc_now
from workflows.ingestion_lines import Lines, Part

SPEC = IndexSpec(model="vectors", dimensions=16)


def work(number: int, *parts: list[str], more: bool = False) -> VersionWork:
    version = Version(number=number, spec=SPEC, created_at=utc_now())
    return VersionWork(version=version, parts=list(parts), more=more)


def begun(lines: Lines, at_once: int = 4) -> list[Part]:
    found: list[Part] = []
    while (part := lines.next(at_once)) is not None:
        found.append(part)
    return found


def test_each_version_has_so_many_parts_under_way_and_the_serving_one_begins() -> None:
    lines = Lines()
    lines.follow([work(1, ["a"], ["b"], ["c"]), work(2, ["a"], ["b"])], [])
    assert [(part.version, part.docs) for part in begun(lines, 2)] == [
        (1, ["a"]),
        (1, ["b"]),
        (2, ["a"]),
        (2, ["b"]),
    ]
    assert (lines.serving, lines.building) == (1, 2)


def test_what_is_in_hand_is_told_to_the_planner_but_by_versions_that_have_enough() -> None:
    lines = Lines()
    lines.follow([work(1, ["a", "b"]), work(2, ["a"], ["b"])], [])
    begun(lines, 1)
    busy, in_hand = lines.known()
    assert busy == [2]
    assert [(one.version, one.docs) for one in in_hand] == [(1, ["a", "b"])]
    assert lines.known(but=2)[0] == [1, 2]


def test_a_version_that_had_enough_is_planned_for_when_it_has_not() -> None:
    """It may have more to do since: nobody has looked."""
    lines = Lines()
    lines.follow([work(1, ["a"], ["b"])], [])
    begun(lines, 1)
    busy, _ = lines.known()
    lines.follow([work(1)], busy)
    assert not lines.want_more()
    begun(lines)
    assert lines.want_more()


def test_what_a_plan_passed_over_is_looked_at_again_when_it_has_ended() -> None:
    lines = Lines()
    lines.follow([work(1, ["a"])], [])
    (part,) = begun(lines)
    lines.follow([work(1)], lines.known()[0])
    assert not lines.want_more()
    assert lines.end(part)
    assert lines.want_more()


def test_a_part_that_is_suspected_comes_down_to_single_documents_one_at_a_time() -> None:
    lines = Lines()
    docs = [f"d{n}" for n in range(128)]
    lines.follow([work(1, docs)], [])
    (part,) = begun(lines)
    lines.suspect(part)
    lines.end(part)
    assert lines.next(4) is None
    seen: list[str] = []
    sizes: set[int] = set()
    while (one := lines.next_suspect()) is not None:
        assert one.alone
        sizes.add(len(one.docs))
        if len(one.docs) == 1:
            seen += one.docs
        else:
            lines.suspect(one)
        lines.end(one)
    assert sorted(seen) == sorted(docs)
    assert max(sizes) <= 11
    assert lines.is_done(1)


def test_of_a_version_that_is_held_nothing_is_begun() -> None:
    lines = Lines()
    lines.follow([work(1, ["a"]), work(2, ["a"])], [])
    lines.hold(1)
    assert [part.version for part in begun(lines)] == [2]
    lines.hold(None)
    assert [part.version for part in begun(lines)] == [1]


def test_versions_that_are_no_more_are_told() -> None:
    lines = Lines()
    lines.follow([work(1, ["a"]), work(2, ["a"])], [])
    parts = begun(lines)
    assert lines.follow([work(2)], []) == [1]
    assert (lines.serving, lines.building) == (2, None)
    assert lines.end(parts[0])
    assert not lines.is_done(2)
