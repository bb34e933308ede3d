"""An endpoint of SageMaker's: bytes in, bytes out, at once, in a stream, or by way of S3.

By aiobotocore, not by boto3 in threads: a reply or an asynchronous invocation would hold a thread for
minutes, and a blocking read can't be cancelled. The price is its tight bound on botocore's version.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import ClientError as ConnectionFault
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EventStreamError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from goatherd.contracts.providers import AsyncInvocation, SageMakerOptions
from goatherd.errors import GoatherdError, Invalid, TooManyRequests, Unavailable

_MOST_CHARS = 500
_CONNECT_S = 10
_REFUSED = (
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
_THROTTLED = ("SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException")
_NOT_THERE = ("404", "NoSuchKey", "NotFound")
_CLIENT_ERROR = re.compile(r"client error \(4\d\d\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Body:
    data: bytes
    content_type: str


class Endpoint:
    """Belongs to the event loop that it is first called on."""

    def __init__(self, name: str, endpoint: str, options: SageMakerOptions, session: AioSession) -> None:
        """`name`: the model's public name, for messages."""
        self._name = name
        self._endpoint = endpoint
        self._options = options
        self._session = session
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._clients: dict[str, Any] = {}

    @classmethod
    def open(cls, name: str, endpoint: str, options: SageMakerOptions) -> Endpoint:
        """Reads the SDK's definitions, which takes a while; connects to nothing."""
        session = AioSession(profile=options.profile)
        loader = session.get_component("data_loader")
        for service in ["sagemaker-runtime", *(["s3"] if options.asynchronous else [])]:
            loader.load_service_model(service, "service-2")
            loader.load_service_model(service, "endpoint-rule-set-1")
        for data in ("endpoints", "partitions"):
            loader.load_data(data)
        return cls(name, endpoint, options, session)

    async def close(self) -> None:
        await self._stack.aclose()

    async def invoke(self, body: Body, *, accept: str) -> Body:
        """Raises errors of ours. An asynchronous endpoint is asked by S3."""
        with _translated(self._name, self._endpoint, self._options):
            if self._options.asynchronous is not None:
                return await self._by_s3(body, accept, self._options.asynchronous)
            runtime = await self._client("sagemaker-runtime")
            more = {"TargetModel": self._options.target_model} if self._options.target_model else {}
            answer = await runtime.invoke_endpoint(
                **self._common(), **more, Body=body.data, ContentType=body.content_type, Accept=accept
            )
            async with answer["Body"] as stream:
                return Body(await stream.read(), answer.get("ContentType") or "")

    async def stream(self, body: Body, *, accept: str) -> AsyncGenerator[bytes]:
        """The parts of the answer as they come: cut anywhere. Closed, it closes the connection."""
        with _translated(self._name, self._endpoint, self._options):
            runtime = await self._client("sagemaker-runtime")
            answer = await runtime.invoke_endpoint_with_response_stream(
                **self._common(), Body=body.data, ContentType=body.content_type, Accept=accept
            )
            events = answer["Body"]
            try:
                async for event in events:
                    if part := event.get("PayloadPart"):
                        yield part["Bytes"]
            finally:
                events.close()

    def _common(self) -> dict[str, str]:
        options = self._options
        given = {
            "EndpointName": self._endpoint,
            "TargetVariant": options.target_variant,
            "InferenceComponentName": options.inference_component,
        }
        return {name: value for name, value in given.items() if value}

    async def _by_s3(self, body: Body, accept: str, options: AsyncInvocation) -> Body:
        s3, runtime = await self._client("s3"), await self._client("sagemaker-runtime")
        bucket, prefix = _place(options.input_s3)
        key = "/".join(part for part in (prefix.strip("/"), f"{uuid.uuid4()}.in") if part)
        await s3.put_object(Bucket=bucket, Key=key, Body=body.data, ContentType=body.content_type)
        read: list[tuple[str, str]] = [(bucket, key)]
        try:
            # The variant and the component are the endpoint's own affair here: the call has no such fields.
            answer = await runtime.invoke_endpoint_async(
                EndpointName=self._endpoint,
                InputLocation=f"s3://{bucket}/{key}",
                ContentType=body.content_type,
                Accept=accept,
            )
            outputs = options.output_s3 or options.input_s3
            output = self._within(answer["OutputLocation"], outputs, "output_s3")
            failure = None
            if answer.get("FailureLocation"):
                failures = options.failure_s3 or outputs
                failure = self._within(answer["FailureLocation"], failures, "failure_s3")
            while True:
                if (made := await _fetch(s3, output)) is not None:
                    read.append(output)
                    return made
                if failure and (said := await _fetch(s3, failure)) is not None:
                    read.append(failure)
                    raise _failed(self._name, said.data.decode("utf-8", "replace"))
                await asyncio.sleep(options.poll_s)
        finally:
            if not options.keep:
                with suppress(BotoCoreError, ClientError):
                    for place in read:
                        await s3.delete_object(Bucket=place[0], Key=place[1])

    def _within(self, url: str, allowed: str, option: str) -> tuple[str, str]:
        """The place that an answer names, if it is below the one that the options name: with our credentials
        nothing else is read or deleted, whoever answers."""
        bucket, key = _place(url)
        own, prefix = _place(allowed)
        prefix = prefix.rstrip("/")
        if bucket == own and key.startswith(f"{prefix}/" if prefix else ""):
            return bucket, key
        raise Unavailable(
            f"model {self._name!r} is unavailable: endpoint {self._endpoint!r} puts its results into "
            f"s3://{bucket}, not below {allowed}; set options.async.{option} to where its configuration says",
            code="model-unavailable",
            retry_after_s=60,
        )

    async def _client(self, service: str) -> Any:
        async with self._opening:
            if service not in self._clients:
                options = self._options
                s3 = options.asynchronous.s3_endpoint_url if options.asynchronous else None
                config = AioConfig(
                    connect_timeout=_CONNECT_S,
                    read_timeout=options.timeout_s,
                    retries={"total_max_attempts": 1},  # who asks tries again anyway
                    max_pool_connections=256,
                    **({"s3": {"addressing_style": "path"}} if s3 else {}),
                )
                self._clients[service] = await self._stack.enter_async_context(
                    self._session.create_client(
                        service,
                        region_name=options.region,
                        endpoint_url=s3 if service == "s3" else options.endpoint_url,
                        config=config,
                    )
                )
            return self._clients[service]


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, parts.path.lstrip("/")


async def _fetch(s3: Any, place: tuple[str, str]) -> Body | None:
    """None if it is not there (yet)."""
    bucket, key = place
    try:
        answer = await s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NOT_THERE:
            return None
        raise
    async with answer["Body"] as stream:
        return Body(await stream.read(), answer.get("ContentType") or "")


@contextmanager
def _translated(name: str, endpoint: str, options: SageMakerOptions) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _of_code(name, endpoint, error) from None
    except (NoCredentialsError, NoRegionError, ProfileNotFound) as error:
        raise Unavailable(
            f"model {name!r} is unavailable: {error}; configure the SDK of this worker",
            code="model-unavailable",
            retry_after_s=60,
        ) from None
    except HTTPClientError as error:
        raise Unavailable(f"model {name!r}: no answer of endpoint {endpoint!r} ({error})") from None
    except BotoCoreError as error:
        raise Unavailable(f"model {name!r}: endpoint {endpoint!r} can't be called ({error})") from None
    except (ConnectionFault, TimeoutError, OSError) as error:
        raise Unavailable(
            f"model {name!r}: endpoint {endpoint!r} said nothing for {options.timeout_s:g} s, or the "
            f"connection broke ({type(error).__name__})"
        ) from None


def _of_code(name: str, endpoint: str, error: ClientError) -> GoatherdError:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    message = str(said.get("Message") or said.get("message") or error.response.get("Message") or code)
    message = message[:_MOST_CHARS]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    if code == "ModelError" or isinstance(error, EventStreamError):
        original = int(error.response.get("OriginalStatusCode") or said.get("OriginalStatusCode") or 0)
        original_message = str(error.response.get("OriginalMessage") or message)[:_MOST_CHARS]
        return _of_model(name, original, original_message)
    if code in _THROTTLED or status == 429:
        return TooManyRequests(f"model {name!r}: endpoint {endpoint!r} has enough to do: {message}")
    if code in _REFUSED or status == 403:
        return Unavailable(
            f"model {name!r} is unavailable: the credentials of this worker were refused ({code})",
            code="model-unavailable",
            retry_after_s=60,
        )
    if code in ("ValidationError", "ValidationException", "NoSuchBucket") or 400 <= status < 500:
        if "not found" in message.lower() or code == "NoSuchBucket":
            return Unavailable(
                f"model {name!r} is unavailable: {message}", code="model-unavailable", retry_after_s=60
            )
        return Invalid(f"model {name!r}: endpoint {endpoint!r} refused the call: {message}")
    return Unavailable(f"model {name!r}: endpoint {endpoint!r} failed: {message}")


def _of_model(name: str, status: int, message: str) -> GoatherdError:
    """What the container itself said, behind the endpoint."""
    if status == 429:
        return TooManyRequests(f"model {name!r}: its container has enough to do: {message}")
    if 400 <= status < 500 and status != 408:
        return Invalid(f"model {name!r}: its container said {status}: {message}")
    return Unavailable(f"model {name!r}: its container failed ({status or 'no status'}): {message}")


def _failed(name: str, said: str) -> GoatherdError:
    """Of an asynchronous invocation there is only a text."""
    kind = Invalid if _CLIENT_ERROR.search(said) else Unavailable
    return kind(f"model {name!r}: its container failed: {said[:_MOST_CHARS]}")
