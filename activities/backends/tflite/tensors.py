"""The task `tensors`: a graph's own inputs and outputs, by the names of its signature."""

from __future__ import annotations

import numpy as np

from activities.backends.tflite.graph import Array, Graph, Port, Signature
from activities.backends.tflite.running import GraphRunner
from activities.inference_ports import Item
from goatherd.contracts.inference_tasks import Tensor, TensorParameters, Tensors
from goatherd.errors import GoatherdError, Invalid

_DTYPES = ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")


class TensorsRunner(GraphRunner):
    """Numbers go in and come out as the graph has them: quantized ones stay so, NaN stays NaN."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def compute(self, item: Item) -> Tensors:
        wish, given = item.parameters, item.inputs
        assert isinstance(wish, TensorParameters)
        assert isinstance(given, Tensors)
        signature = self._signature(wish)
        names = [port.name for port in signature.inputs]
        for name in given.tensors:
            if name not in names:
                raise _wrong(f"there is no input {name!r}", signature, name)
        values = {
            port.name: _read(given.tensors.get(port.name), port, signature) for port in signature.inputs
        }
        made = self._graph.run_signature(signature, values)
        return Tensors(tensors={name: _tensor(name, value) for name, value in made.items()})

    def _signature(self, wish: TensorParameters) -> Signature:
        signatures = self._graph.signatures
        if wish.signature is None:
            return signatures[0]
        for signature in signatures:
            if signature.name == wish.signature:
                return signature
        known = "; ".join(map(str, signatures))
        raise Invalid(f"there is no signature {wish.signature!r}: {known}", pointer="/parameters/signature")


def _read(tensor: Tensor | None, port: Port, signature: Signature) -> Array:
    if tensor is None:
        raise _wrong(f"the input {port.name!r} is missing", signature)
    if tensor.dtype != port.dtype.name:
        raise _wrong(f"{port.name!r} is {tensor.dtype}", signature, port.name, "dtype")
    if not port.fits(tensor.shape):
        raise _wrong(f"{port.name!r} has the shape {tensor.shape}", signature, port.name, "shape")
    if 0 in tensor.shape:
        raise _wrong(f"{port.name!r} has no numbers", signature, port.name, "shape")
    dtype = port.dtype.newbyteorder("<")
    # Python's numbers: a product of numpy's could overflow.
    count = 1
    for size in tensor.shape:
        count *= size
    if count * dtype.itemsize != len(tensor.data):
        raise _wrong(
            f"{port.name!r} has {len(tensor.data)} bytes, and {count} numbers of {tensor.dtype} have "
            f"{count * dtype.itemsize}",
            signature,
            port.name,
            "data",
        )
    return np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape).astype(port.dtype, copy=False)


def _tensor(name: str, value: Array) -> Tensor:
    value = np.asarray(value)
    if value.dtype.name not in _DTYPES:
        raise GoatherdError(f"the output {name!r} is of {value.dtype.name}, which can't be passed on")
    data = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return Tensor.model_validate({"dtype": value.dtype.name, "shape": list(value.shape), "data": data})


def _wrong(why: str, signature: Signature, *where: str) -> Invalid:
    parts = (part.replace("~", "~0").replace("/", "~1") for part in ("inputs", "tensors", *where))
    return Invalid(f"{why}; {signature}", pointer="/" + "/".join(parts))
