"""Which answers are kept for those who ask again, or later."""

from __future__ import annotations

from goatherd.actors.durable._window import ANSWERS, Window


def test_an_answer_that_was_put_off_is_kept_until_it_is_collected() -> None:
    window = Window()
    seen = [window.add(f"{number}") for number in range(ANSWERS + 2)]
    for number, one in enumerate(seen):
        window.answer(one, number, None)
    window.put_off(seen[0])
    window.trim()
    assert [one.kept for one in seen[:3]] == [True, False, True]
    window.collected(seen[0])
    window.trim()
    assert (seen[0].kept, seen[2].kept) == (True, False)
