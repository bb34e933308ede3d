"""A graph and its interpreter: what goes in and comes out, by name, dtype and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from goatherd.errors import GoatherdError, Invalid

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. A dimension of -1 may have any size."""

    name: str
    index: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scale: float
    """Of quantized numbers: what is meant is (number - zero) * scale. 0: they are not quantized."""
    zero: int

    @classmethod
    def read(cls, details: Mapping[str, Any], name: str | None = None) -> Port:
        quantized = details["quantization_parameters"]
        scales, zeros = quantized["scales"], quantized["zero_points"]
        one = len(scales) == 1
        return cls(
            name=name or details["name"],
            index=int(details["index"]),
            dtype=np.dtype(details["dtype"]),
            shape=tuple(int(size) for size in details["shape_signature"]),
            scale=float(scales[0]) if one else 0.0,
            zero=int(zeros[0]) if one else 0,
        )

    def __str__(self) -> str:
        sizes = ", ".join("?" if size < 0 else str(size) for size in self.shape)
        quantized = f" (scale {self.scale:g}, zero point {self.zero})" if self.scale else ""
        return f"{self.name}: {self.dtype.name}[{sizes}]{quantized}"

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(
            own in (-1, size) for own, size in zip(self.shape, shape, strict=True)
        )

    def quantized(self, real: Array) -> Array:
        """Numbers as the graph takes them."""
        if not self.scale:
            if self.dtype.kind in "iu":
                limits = np.iinfo(self.dtype)
                real = np.clip(np.rint(real), limits.min, limits.max)
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(real / self.scale) + self.zero
        return np.asarray(np.clip(steps, limits.min, limits.max), dtype=self.dtype)

    def real(self, numbers: Array) -> Array:
        """What the graph's numbers mean, as float32."""
        if not self.scale:
            return numbers.astype(np.float32)
        return (numbers.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class Signature:
    """`name` is None for a graph that has no signature: then the tensors' own names are the inputs'."""

    name: str | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __str__(self) -> str:
        title = f"signature {self.name!r}" if self.name else "the graph"
        inputs, outputs = ("; ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return f"{title} takes {inputs}; gives {outputs}"


class Graph:
    """Not for several threads at once.

    Raises:
        ValueError, RuntimeError: the file is no graph, or has operations that this runtime lacks.
    """

    def __init__(self, file: Path, threads: int | None) -> None:
        self._file = file
        self._threads = threads
        self._interpreter = self._new()
        interpreter = self._interpreter
        self.inputs = tuple(Port.read(one) for one in interpreter.get_input_details())
        self.outputs = tuple(Port.read(one) for one in interpreter.get_output_details())
        self.signatures = self._signatures()

    def run(self, *values: Array) -> list[Array]:
        """The outputs for inputs of these numbers, in the graph's own dtypes and its main order.

        Raises:
            Invalid: the graph can't compute with inputs of these shapes.
        """
        with _Guard(self):
            interpreter = self._interpreter
            if any(
                tuple(value.shape) != tuple(interpreter.get_input_details()[n]["shape"])
                for n, value in enumerate(values)
            ):
                for port, value in zip(self.inputs, values, strict=True):
                    interpreter.resize_tensor_input(port.index, value.shape)
                interpreter.allocate_tensors()
            for port, value in zip(self.inputs, values, strict=True):
                interpreter.set_tensor(port.index, value)
            interpreter.invoke()
            return [interpreter.get_tensor(port.index) for port in self.outputs]

    def run_signature(self, signature: Signature, values: Mapping[str, Array]) -> dict[str, Array]:
        """By name. Raises as `run` does."""
        if signature.name is None:
            made = self.run(*(values[port.name] for port in signature.inputs))
            return {port.name: one for port, one in zip(signature.outputs, made, strict=True)}
        with _Guard(self):
            given: dict[str, Array] = self._interpreter.get_signature_runner(signature.name)(**values)
            return given

    def renew(self) -> None:
        """A failed computation may leave an interpreter unfit for the next."""
        self._interpreter = self._new()

    def _new(self) -> Any:
        interpreter = Interpreter(model_path=str(self._file), num_threads=self._threads)
        interpreter.allocate_tensors()
        return interpreter

    def _signatures(self) -> tuple[Signature, ...]:
        interpreter = self._interpreter
        found = []
        for name in interpreter.get_signature_list():
            runner = interpreter.get_signature_runner(name)
            inputs = tuple(Port.read(one, key) for key, one in runner.get_input_details().items())
            outputs = tuple(Port.read(one, key) for key, one in runner.get_output_details().items())
            found.append(Signature(name, inputs, outputs))
        return tuple(found) or (Signature(None, self.inputs, self.outputs),)


class _Guard:
    """Makes errors of ours of an interpreter's, and renews the interpreter after one."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (RuntimeError, ValueError)):
            self._graph.renew()
            why = str(error).strip().splitlines()[0] if str(error).strip() else "it failed"
            raise Invalid(f"the graph can't compute with this input: {why}") from error
        if error is not None and not isinstance(error, GoatherdError):
            self._graph.renew()
