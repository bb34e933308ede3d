from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from activities.backends.hf.drawing import drawn_from

CPU = torch.device("cpu")
DRAWS: dict[str, Callable[[], torch.Tensor]] = {
    "randn": lambda: torch.randn(3, 4),
    "rand": lambda: torch.rand(5),
    "randn_like": lambda: torch.randn_like(torch.zeros(2, 3, 4).transpose(1, 2)),
    "rand_like": lambda: torch.rand_like(torch.zeros(3, dtype=torch.float64)),
    "multinomial": lambda: torch.multinomial(torch.ones(2, 50), 4),
    "bernoulli": lambda: torch.bernoulli(torch.full((40,), 0.5)),
    "normal_": lambda: torch.empty(6).normal_(),
    "uniform_": lambda: torch.empty(6).uniform_(),
}


@pytest.mark.parametrize("name", list(DRAWS))
def test_numbers_are_those_of_the_whole_processs_seed(name: str) -> None:
    torch.manual_seed(11)
    expected = DRAWS[name]()
    with drawn_from(11, CPU):
        assert torch.equal(DRAWS[name](), expected)


def test_other_threads_draw_neither_from_it_nor_change_it() -> None:
    both = Barrier(2)

    def drawn(seed: int) -> list[float]:
        numbers = []
        with drawn_from(seed, CPU):
            for _ in range(50):
                both.wait()
                numbers.append(float(torch.randn(1)))
        return numbers

    with ThreadPoolExecutor(2) as threads:
        one, other = (threads.submit(drawn, seed) for seed in (1, 2))
    torch.manual_seed(1)
    assert one.result() == [float(torch.randn(1)) for _ in range(50)]
    assert other.result() != one.result()


def test_without_a_seed_the_process_decides() -> None:
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    with drawn_from(None, CPU):
        assert torch.equal(torch.randn(2), expected)
