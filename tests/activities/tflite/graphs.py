"""Small graphs that are put together by hand, with weights of which one knows what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from numpy.typing import NDArray

Array = NDArray[Any]

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}


@dataclass
class Builder:
    """A graph of one subgraph. Tensors are named by what `tensor` returns."""

    model: Any = field(default_factory=schema.ModelT)

    def __post_init__(self) -> None:
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        values: Array | None = None,
        quantized: tuple[float, int] | None = None,
    ) -> int:
        one = schema.TensorT()
        one.name, one.type, one.buffer = name.encode(), _TYPES[dtype], 0
        one.shape = [max(1, size) for size in shape]
        if min(shape, default=1) < 0:
            one.shapeSignature = list(shape)
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values, dtype=dtype).tobytes(), dtype=np.uint8)
            one.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if quantized is not None:
            one.quantization = schema.QuantizationParametersT()
            one.quantization.scale, one.quantization.zeroPoint = [quantized[0]], [quantized[1]]
        self.graph.tensors.append(one)
        return len(self.graph.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[int, Any] | None = None,
        *,
        custom: tuple[str, bytes] | None = None,
    ) -> None:
        kind = schema.OperatorCodeT()
        kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), 1
        one = schema.OperatorT()
        if custom is not None:
            kind.customCode = custom[0].encode()
            one.customOptions = np.frombuffer(custom[1], dtype=np.uint8)
        one.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(kind)
        one.inputs, one.outputs = list(inputs), list(outputs)
        if options is not None:
            one.builtinOptionsType, one.builtinOptions = options
        self.graph.operators.append(one)

    def write(
        self, path: Path, inputs: dict[str, int], outputs: dict[str, int], *, signature: str | None = None
    ) -> Path:
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())
        if signature is not None:
            one = schema.SignatureDefT()
            one.signatureKey, one.subgraphIndex = signature.encode(), 0
            one.inputs, one.outputs = _maps(inputs), _maps(outputs)
            self.model.signatureDefs = [one]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def _maps(places: dict[str, int]) -> list[Any]:
    made = []
    for name, index in places.items():
        one = schema.TensorMapT()
        one.name, one.tensorIndex = name.encode(), index
        made.append(one)
    return made


def _dense() -> tuple[int, Any]:
    return schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT()


def colors(path: Path, *, side: int = 4) -> Path:
    """Image [1, side, side, 3] of -1 to 1 → how red, green and blue it is on average."""
    builder = Builder()
    weights = np.zeros((3, side * side, 3), dtype=np.float32)
    for channel in range(3):
        weights[channel, :, channel] = 1 / (side * side)
    image = builder.tensor("image", (1, side, side, 3))
    dense = builder.tensor("weights", (3, side * side * 3), values=weights.reshape(3, -1))
    scores = builder.tensor("scores", (1, 3))
    builder.operator(schema.BuiltinOperator.FULLY_CONNECTED, (image, dense, -1), (scores,), _dense())
    return builder.write(path, {"image": image}, {"scores": scores})


def quantized_colors(path: Path, *, side: int = 4) -> Path:
    """The same with whole numbers: pixels are 0 to 1 by a scale of 1/255, scores 0 to 1 as well."""
    builder = Builder()
    weights = np.zeros((3, side * side, 3), dtype=np.int8)
    for channel in range(3):
        weights[channel, :, channel] = 100
    image = builder.tensor("image", (1, side, side, 3), "int8", quantized=(1 / 255, -128))
    scale = 1 / (100 * side * side)
    dense = builder.tensor(
        "weights", (3, side * side * 3), "int8", values=weights.reshape(3, -1), quantized=(scale, 0)
    )
    bias = builder.tensor(
        "bias", (3,), "int32", values=np.zeros(3, dtype=np.int32), quantized=(scale / 255, 0)
    )
    scores = builder.tensor("scores", (1, 3), "int8", quantized=(1 / 256, -128))
    builder.operator(schema.BuiltinOperator.FULLY_CONNECTED, (image, dense, bias), (scores,), _dense())
    return builder.write(path, {"image": image}, {"scores": scores})


def loudness(path: Path, *, samples: int = 400) -> Path:
    """Waveform [samples] → scores [1, 2]: half of one, against how loud it is on average."""
    builder = Builder()
    wave = builder.tensor("waveform", (samples,))
    loud = builder.tensor("loud", (samples,))
    builder.operator(
        schema.BuiltinOperator.ABS, (wave,), (loud,), (schema.BuiltinOptions.AbsOptions, schema.AbsOptionsT())
    )
    weights = np.stack([np.zeros(samples), np.full(samples, 1 / samples)]).astype(np.float32)
    dense = builder.tensor("weights", (2, samples), values=weights)
    bias = builder.tensor("bias", (2,), values=np.array([0.5, 0.0], dtype=np.float32))
    scores = builder.tensor("scores", (1, 2))
    builder.operator(schema.BuiltinOperator.FULLY_CONNECTED, (loud, dense, bias), (scores,), _dense())
    return builder.write(path, {"waveform": wave}, {"scores": scores})


def sums(path: Path, *, signature: str | None = "add") -> Path:
    """a [?, 3] and b [?, 3] → their sum."""
    builder = Builder()
    a, b, total = (builder.tensor(f"{name}_tensor", (-1, 3)) for name in ("a", "b", "sum"))
    builder.operator(
        schema.BuiltinOperator.ADD, (a, b), (total,), (schema.BuiltinOptions.AddOptions, schema.AddOptionsT())
    )
    return builder.write(path, {"a": a, "b": b}, {"sum": total}, signature=signature)


def boxes(path: Path, found: Sequence[tuple[float, float, float, float]], scores: Array) -> Path:
    """Any image [1, 4, 4, 3] → always these boxes (y, x, height, width of 0 to 1: their middles and sizes)
    with these scores (box, class), by the operation that detectors of this kind end in."""
    builder = Builder()
    count, kinds = scores.shape
    image = builder.tensor("image", (1, 4, 4, 3), "uint8", quantized=(1 / 128, 128))
    real = builder.tensor("real", (1, 4, 4, 3))
    builder.operator(
        schema.BuiltinOperator.DEQUANTIZE,
        (image,),
        (real,),
        (schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT()),
    )
    # Anchors are the boxes, so that their encodings are all zero; scores come as the bias of no weights.
    anchors = builder.tensor("anchors", (count, 4), values=np.array(found, dtype=np.float32))

    def constant(name: str, values: Array, shape: tuple[int, ...]) -> int:
        nothing = builder.tensor(f"{name}_w", (values.size, 48), values=np.zeros((values.size, 48)))
        bias = builder.tensor(f"{name}_b", (values.size,), values=values.ravel())
        flat = builder.tensor(f"{name}_flat", (1, values.size))
        builder.operator(schema.BuiltinOperator.FULLY_CONNECTED, (real, nothing, bias), (flat,), _dense())
        target = builder.tensor(f"{name}_shape", (3,), "int32", values=np.array(shape))
        shaped = builder.tensor(name, shape)
        builder.operator(schema.BuiltinOperator.RESHAPE, (flat, target), (shaped,))
        return shaped

    encodings = constant("encodings", np.zeros((count, 4)), (1, count, 4))
    background = np.concatenate([np.zeros((count, 1)), scores], axis=1)
    predictions = constant("predictions", background, (1, count, kinds + 1))
    name = "TFLite_Detection_PostProcess"
    places = [
        builder.tensor(name, (1, count, 4)),
        builder.tensor(f"{name}:1", (1, count)),
        builder.tensor(f"{name}:2", (1, count)),
        builder.tensor(f"{name}:3", (1,)),
    ]
    options = flexbuffers.Dumps(
        {
            "max_detections": count,
            "max_classes_per_detection": 1,
            "detections_per_class": count,
            "use_regular_nms": False,
            "nms_score_threshold": 0.01,
            "nms_iou_threshold": 0.5,
            "num_classes": kinds,
            **{f"{axis}_scale": 1.0 for axis in "yxhw"},
        }
    )
    builder.operator(
        schema.BuiltinOperator.CUSTOM,
        (encodings, predictions, anchors),
        places,
        custom=(name, bytes(options)),
    )
    outputs = {str(n): place for n, place in enumerate(places)}
    return builder.write(path, {"image": image}, outputs)
