"""`Provider` by Hugging Face transformers and diffusers, in this process. Light until a model is loaded."""

from __future__ import annotations

from threading import Lock

from activities.backends.hf.code import import_modules
from activities.backends.hf.families import FAMILIES, family
from activities.backends.hf.weights import weights_bytes
from activities.backends.model_sources import broken, prepare, unusable
from activities.inference_ports import LoadContext, LoadedModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.providers import HuggingFaceOptions, read_options
from goatherd.errors import GoatherdError, Invalid, WrongTask

_ONE_AT_A_TIME = Lock()
"""transformers sets torch's default dtype, which is the process's, while it makes a model, and then sets back
what it found: two at once leave each other's, for good."""


class HuggingFaceProvider:
    """Loads hub ids, local folders, and weights that Python packages carry. Of weights only safetensors:
    other forms are pickles, which run code when they are read. Nor is code run that a model brings along.
    """

    def check(self, name: str, spec: ModelSpec) -> None:
        if spec.task not in FAMILIES:
            raise WrongTask(f"model {name!r}: the provider huggingface has no {spec.task}")
        if not spec.source:
            raise Invalid(f"model {name!r} has no source", pointer="/source")
        kind = spec.device.partition(":")[0]
        if kind not in ("auto", "cpu", "cuda", "mps", "xpu"):
            raise Invalid(f"model {name!r}: there is no device {spec.device!r}", pointer="/device")
        read_options(HuggingFaceOptions, spec)

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        prepare(name, spec, context.cache, context.progress)

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        """By the sizes of the safetensors' tensors in the dtype that they are loaded in."""
        return weights_bytes(prepare(name, spec, context.cache, context.progress), spec)

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        self.check(name, spec)
        folder = prepare(name, spec, context.cache, context.progress)
        context.progress(f"loading {name}: torch and transformers …")
        import_modules(name, spec)
        try:
            load = family(spec.task)
            context.progress(f"loading {name}: weights …")
            with _ONE_AT_A_TIME:
                return load(name, spec, folder, context)
        except GoatherdError:
            raise
        except ImportError as error:
            raise broken(
                name, f"{error.name or error} is not installed", "install goatherd[inference]"
            ) from error
        except Exception as error:
            # Whatever a model's files make transformers and torch raise: there is no common base.
            raise unusable(
                name, error, f"{spec.source!r} can't be loaded for {spec.task} ({error})", "check its files"
            ) from error
