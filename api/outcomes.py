"""What became of the items of one request: their outputs, or the error that says why one has none."""

from __future__ import annotations

from collections.abc import Sequence

from goatherd.contracts.inference_work import Outcome, Problem, TextUsage
from goatherd.errors import GoatherdError, TooManyRequests, Unavailable, from_code


def error_of(problem: Problem, *, at: str = "") -> GoatherdError:
    """The error that it stands for; `at` is where in the request the item is."""
    error = from_code(problem.code, problem.message)
    if problem.pointer is not None:
        error.pointer = at + problem.pointer.removeprefix("/inputs") if at else problem.pointer
    elif at:
        error.pointer = at
    if isinstance(error, Unavailable | TooManyRequests) and problem.retry_after_s is not None:
        error.retry_after_s = problem.retry_after_s
    return error


def all_done(outcomes: Sequence[Outcome], *, many: str | None = None) -> Sequence[Outcome]:
    """The same, if all have an output; `many` is the pointer to the list that they are of, if it was one.

    Raises the first one's error that has none: a list of results with holes is what no client reads.
    """
    for index, outcome in enumerate(outcomes):
        if outcome.problem is not None:
            raise error_of(outcome.problem, at="" if many is None else f"{many}/{index}")
    return outcomes


def usage_of(outcome: Outcome) -> TextUsage:
    """The tokens that it took: as the item says, else as the end of its text does."""
    if outcome.usage is not None:
        return outcome.usage
    if outcome.finish is not None:
        usage = outcome.finish.usage
        return TextUsage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
    return TextUsage()
