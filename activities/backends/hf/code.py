"""Model classes of one's own: modules that inference workers import before they load a model.

A model whose class transformers does not have names the modules that register it with the Auto classes:
`options: {"code": ["shop.classifiers"]}`. They are found as any Python module is, installed, on PYTHONPATH or
in the worker's folder; never among a model's files, and never fetched.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from activities.backends.model_sources import broken
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.providers import HuggingFaceOptions, read_options


def import_modules(name: str, spec: ModelSpec) -> None:
    """Imports what the model names; what is there already is not imported again.

    Raises:
        ModelBroken: one of them can't be imported.
    """
    modules = read_options(HuggingFaceOptions, spec).code
    here = os.getcwd()
    if modules and here not in sys.path:
        sys.path.append(here)  # Behind all others, as for the actors' modules.
    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            raise broken(
                name,
                f"its module {module!r} can't be imported ({type(error).__name__}: {error})",
                "see that it is installed, on PYTHONPATH or in the worker's folder",
            ) from error
