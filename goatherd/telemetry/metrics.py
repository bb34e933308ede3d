"""Goatherd's Prometheus metrics: each defined here, once, and set where the thing happens."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    start_http_server,
)

# Our own, not the library's global one: what else is in the process doesn't show up here.
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

HTTP_REQUESTS = Counter(
    "goatherd_http_requests",
    "Requests answered, by route template.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_REQUEST_SECONDS = Histogram(
    "goatherd_http_request_duration_seconds",
    "From a request's arrival to the end of its answer; of a stream, to its start.",
    ["method", "route"],
    buckets=_FAST_S,
    registry=REGISTRY,
)
ASKS = Counter(
    "goatherd_asks",
    "Messages to actors that want an answer, by update name; the outcome is `ok`, `stopped` (not there:"
    " it has ended, or was between two runs), `cancelled`, or an error's code.",
    ["name", "outcome"],
    registry=REGISTRY,
)
ASK_SECONDS = Histogram(
    "goatherd_ask_duration_seconds",
    "From asking an actor to its answer.",
    ["name"],
    buckets=_FAST_S,
    registry=REGISTRY,
)
STORE_APPEND_EVENTS = Histogram(
    "goatherd_store_append_events",
    "Events written to the store by one append.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    registry=REGISTRY,
)
STORE_APPEND_SECONDS = Histogram(
    "goatherd_store_append_duration_seconds", "One append to the store.", buckets=_FAST_S, registry=REGISTRY
)
OPEN_SOCKETS = Gauge(
    "goatherd_open_sockets",
    "Clients that follow a session right now, by `transport`: `ws` or `sse`.",
    ["transport"],
    registry=REGISTRY,
)
SLOW_CONSUMERS = Counter(
    "goatherd_slow_consumers", "Clients cut off because they read too slowly.", registry=REGISTRY
)
FEED_RESYNCS = Counter(
    "goatherd_feed_resyncs", "Times that the change feed was lost and healed by replay.", registry=REGISTRY
)
REPLIES = Counter(
    "goatherd_replies",
    "Replies made, by how they ended: completed, failed, cancelled.",
    ["model", "status"],
    registry=REGISTRY,
)
REPLY_FIRST_TOKEN_SECONDS = Histogram(
    "goatherd_reply_first_token_seconds",
    "From a turn's start on its worker to the model's first token.",
    ["model"],
    buckets=_SLOW_S,
    registry=REGISTRY,
)
TOKENS_GENERATED = Counter(
    "goatherd_tokens_generated", "Tokens that models made.", ["model"], registry=REGISTRY
)
GENERATIONS = Gauge(
    "goatherd_generations_in_progress", "Replies being made right now.", ["model"], registry=REGISTRY
)

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

INFER_WAITING = Gauge(
    "goatherd_infer_waiting", "Inputs that wait for a batch.", ["model", "task"], registry=REGISTRY
)
INFER_BATCH = Histogram(
    "goatherd_infer_batch",
    "Inputs computed together.",
    ["model", "task"],
    buckets=_BATCHES,
    registry=REGISTRY,
)
INFER_QUEUE_SECONDS = Histogram(
    "goatherd_infer_queue_seconds",
    "From an input's arrival at a loaded model to its batch's start.",
    ["model", "task"],
    buckets=_FAST_S,
    registry=REGISTRY,
)
INFER_COMPUTE_SECONDS = Histogram(
    "goatherd_infer_compute_seconds",
    "One batch; of generated text, one text.",
    ["model", "task"],
    buckets=_SLOW_S,
    registry=REGISTRY,
)
INFER_ITEMS = Counter(
    "goatherd_infer_items",
    "Inputs answered; the outcome is `ok`, `cancelled` or an error's code.",
    ["model", "task", "outcome"],
    registry=REGISTRY,
)
INFER_TOKENS = Counter(
    "goatherd_infer_tokens",
    "Tokens that models read (`in`) and made (`out`), where they are counted.",
    ["model", "task", "direction"],
    registry=REGISTRY,
)
MODEL_LOADS = Counter(
    "goatherd_model_loads", "Loads, by how they ended: ok, failed.", ["model", "outcome"], registry=REGISTRY
)
MODEL_LOAD_SECONDS = Histogram(
    "goatherd_model_load_seconds", "Loads that went well.", ["model"], buckets=_SLOW_S, registry=REGISTRY
)
MODEL_EVICTIONS = Counter(
    "goatherd_model_evictions", "Models put out to make room for others.", ["model"], registry=REGISTRY
)
MODEL_MEMORY = Gauge(
    "goatherd_model_memory_bytes",
    "What a model takes in memory; 0 when it is out.",
    ["model"],
    registry=REGISTRY,
)


def render() -> tuple[bytes, str]:
    """All of them in Prometheus's text format, and its content type: the answer to GET /metrics."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


class MetricsServer:
    """Serves `/metrics` from a thread until it is closed."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(port: int, host: str = "127.0.0.1") -> MetricsServer:
    """Serves this process's metrics, for those that have no HTTP front of their own. Port 0: any free one.

    Raises:
        OSError: the port is taken.
    """
    server, thread = start_http_server(port, addr=host, registry=REGISTRY)
    return MetricsServer(server, thread)


_OF_MODELS = (
    INFER_WAITING,
    INFER_BATCH,
    INFER_QUEUE_SECONDS,
    INFER_COMPUTE_SECONDS,
    INFER_ITEMS,
    INFER_TOKENS,
    MODEL_LOADS,
    MODEL_LOAD_SECONDS,
    MODEL_EVICTIONS,
    MODEL_MEMORY,
)


def forget_model(name: str) -> None:
    """Removes all that is counted of one: it will not come again."""
    for metric in _OF_MODELS:
        metric.remove_by_labels({"model": name})
