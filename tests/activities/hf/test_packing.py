"""Linear layers whose weights are packed: they compute what the layers do that they are made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from activities.backends.hf.packing import PackedLinear, pack, rounded

ABLE: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
pytestmark = pytest.mark.skipif(not ABLE, reason="torch has no oneDNN")
SIZE = 128


class Net(nn.Module):
    """A table of words, two layers and a head that shares the table's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(256, SIZE)
        self.up = nn.Linear(SIZE, 2 * SIZE)
        self.down = nn.Linear(2 * SIZE, SIZE, bias=False)
        self.small = nn.Linear(SIZE, 2)
        self.head = nn.Linear(SIZE, 256, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.down(torch.relu(self.up(self.words(ids))))
        return self.head(hidden), self.small(hidden)


class Prying(Net):
    """It looks at a layer's weights while it computes."""

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.up.weight.dtype is torch.float32
        return super().forward(ids)


@pytest.fixture
def example() -> dict[str, torch.Tensor]:
    return {"ids": torch.arange(60).reshape(3, 20)}


def packed(net: Net) -> list[str]:
    return [name for name, layer in net.named_children() if isinstance(layer, PackedLinear)]


def computed(net: Any, example: dict[str, torch.Tensor]) -> Any:
    with torch.inference_mode():
        return net(**example)


def test_a_packed_model_computes_the_same(example: dict[str, torch.Tensor]) -> None:
    net = Net()
    before = computed(net, example)
    pack(net, example)
    assert packed(net) == ["up", "down"]
    for one, other in zip(computed(net, example), before, strict=True):
        torch.testing.assert_close(one, other)


def test_inputs_of_any_shape_are_taken(example: dict[str, torch.Tensor]) -> None:
    net = Net()
    others = [{"ids": torch.arange(size).reshape(shape)} for size, shape in ((1, (1, 1)), (256, (2, 128)))]
    before = [computed(net, other)[0] for other in others]
    pack(net, example)
    for other, theirs in zip(others, before, strict=True):
        torch.testing.assert_close(computed(net, other)[0], theirs)


def test_numbers_of_rows_are_rounded_up_to_few() -> None:
    sizes = range(1, 4_096)
    assert all(0 <= rounded(size) - size < max(8, size / 2) for size in sizes)
    assert len({rounded(size) for size in sizes}) < 60


def test_what_is_packed_already_stays(example: dict[str, torch.Tensor]) -> None:
    net = Net()
    pack(net, example)
    layer = net.up
    pack(net, example)
    assert net.up is layer


def test_a_model_that_reads_its_weights_itself_is_left_as_it_was(example: dict[str, torch.Tensor]) -> None:
    net = Prying()
    before = computed(net, example)
    pack(net, example)
    assert packed(net) == []
    assert torch.equal(computed(net, example)[0], before[0])


def test_other_dtypes_are_left_as_they_are(example: dict[str, torch.Tensor]) -> None:
    net = Net().to(torch.bfloat16)
    pack(net, example)
    assert packed(net) == []
