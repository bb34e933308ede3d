"""Models that are registered by a request: what they may name, and what they may reach.

Whoever posts a model has the workers act for him, with what they can read, reach and import. So he names
where a model is, and nothing that is the workers' own. What can be told from the words is refused here; what
shows only where the model is loaded, the workers refuse by the `Bounds` that go along with its spec.
"""

from __future__ import annotations

import os.path
import re
from urllib.parse import urlsplit

import orjson

from goatherd.contracts.inference import Bounds, ModelWish
from goatherd.contracts.providers import (
    HuggingFaceOptions,
    OpenAIOptions,
    SageMakerOptions,
    TFLiteOptions,
    check_task,
    options_of,
)
from goatherd.errors import Invalid
from goatherd.security.addresses import is_loopback, may_be_public
from goatherd.settings import Settings

_SOURCELESS = frozenset({"scripted"})
_OF_FILES = frozenset({"huggingface", "tflite", "piper"})
_PACKAGE = re.compile(r"package:[A-Za-z_][A-Za-z0-9_]*")
_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")


def bounds_of(settings: Settings) -> Bounds:
    """What a posted model may reach."""
    private, root = settings.posted_model_private, settings.posted_model_root
    return Bounds(
        private=is_loopback(settings.host) if private is None else private,
        root=None if root is None else os.path.abspath(root.expanduser()),
    )


def check_posted(spec: ModelWish, settings: Settings) -> None:
    """Raises `Invalid` unless a spec that somebody sends can be right and may be served.

    It may not name code to import, nor a secret that the settings do not have for posted models: whoever
    names a secret and where it is sent would read it. The same goes for files and for servers.
    """
    if spec.provider not in settings.posted_providers:
        allowed = ", ".join(settings.posted_providers) or "none"
        raise Invalid(
            f"A model that is posted may not be of the provider {spec.provider!r}. GOATHERD_POSTED_PROVIDERS "
            f"lists those that it may: {allowed}.",
            pointer="/provider",
        )
    if not spec.source and spec.provider not in _SOURCELESS:
        raise Invalid("Say where the model is.", pointer="/source")
    _check_kept(spec)
    check_task(spec)
    if "code" in spec.options:
        raise Invalid("Only a model of the settings may name code.", pointer="/options/code")
    options, bounds = options_of(spec), bounds_of(settings)
    if spec.provider in _OF_FILES:
        _check_place(spec.source, bounds, "/source", hub=spec.provider == "huggingface")
    match options:
        case OpenAIOptions():
            _check_secret(options.api_key, settings)
            _check_server(options.base_url, bounds)
        case SageMakerOptions():
            _check_sagemaker(options)
        case HuggingFaceOptions():
            _check_place(options.vocoder, bounds, "/options/vocoder", hub=True)
            if options.voices is not None:
                _check_place(options.voices, bounds, "/options/voices")
        case TFLiteOptions(labels=str(labels)) if os.path.basename(labels) != labels or labels in (".", ".."):
            raise Invalid(
                "The labels of a model that is posted are a list, or a file's name beside the graph.",
                pointer="/options/labels",
            )


def _check_kept(spec: ModelWish) -> None:
    """That the store can keep what has no shape of ours."""
    for name, value in (("parameters", spec.parameters), ("options", spec.options)):
        if rb"\u0000" in orjson.dumps(value):
            raise Invalid("The character NUL can't be kept.", pointer=f"/{name}")


def _check_place(source: str, bounds: Bounds, pointer: str, *, hub: bool = False) -> None:
    if _PACKAGE.fullmatch(source) or (hub and _HUB_ID.fullmatch(source)):
        return
    inside = os.path.normpath(source)
    if bounds.root is not None and os.path.isabs(source):
        root = os.path.normpath(bounds.root)
        if inside == root or inside.startswith(root.rstrip("/") + "/"):
            return
    known = "a hub id or package:NAME" if hub else "package:NAME"
    raise Invalid(
        f"A model that is posted names {known}, or a place below the folder that GOATHERD_POSTED_MODEL_ROOT "
        f"allows ({bounds.root or 'none'}).",
        pointer=pointer,
    )


def _check_secret(secret: str | None, settings: Settings) -> None:
    if secret is not None and secret not in settings.posted_model_secrets:
        allowed = ", ".join(settings.posted_model_secrets) or "none"
        raise Invalid(
            f"A model that is posted may not use the secret {secret!r}. GOATHERD_POSTED_MODEL_SECRETS lists "
            f"those that it may: {allowed}. For a server that asks for no key, set `options.api_key` "
            "to null.",
            pointer="/options/api_key",
        )


def _check_server(url: str, bounds: Bounds) -> None:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        raise Invalid("Is no address of a server.", pointer="/options/base_url")
    if not bounds.private and not may_be_public(host):
        raise Invalid(
            "A model that is posted may not be on a server whose address is not on the public Internet. "
            "GOATHERD_POSTED_MODEL_PRIVATE allows them.",
            pointer="/options/base_url",
        )


def _check_sagemaker(options: SageMakerOptions) -> None:
    """Nothing that the workers' credentials open besides the endpoint."""
    wrong = {
        "endpoint_url": options.endpoint_url,
        "profile": options.profile,
        "async": options.asynchronous,
    }
    for name, value in wrong.items():
        if value is not None:
            raise Invalid(f"Only a model of the settings may have {name!r}.", pointer=f"/options/{name}")
