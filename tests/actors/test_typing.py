"""The type checker knows what an actor takes, and what it answers."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

PROGRAM = """
from goatherd.actors import Behavior, Context, LocalSystem, Ref, Request, message

@message
class Deposit(Request[int]):
    amount: int

@message
class Name(Request[str]):
    pass

@message
class Other:
    pass

Takes = Deposit | Name

class Account(Behavior[Takes]):
    def receive(self, ctx: Context[Takes], message: Takes) -> Behavior[Takes] | None:
        match message:
            case Deposit():
                ctx.reply(message, message.amount)
                ctx.reply(message, "three")  # error: misc
            case Name():
                ctx.self.tell(Deposit(1))
                ctx.self.tell(Other())  # error: arg-type
                ctx.timers.once("key", Other(), 1.0)  # error: arg-type
        return None

async def main(system: LocalSystem) -> None:
    account = system.spawn(Account(), "account")
    account.tell(Other())  # error: arg-type
    less: Ref[Name] = account
    more: Ref[Deposit | Name | Other] = account  # error: assignment
    total: int = await system.ask(account, Deposit(1))
    name: int = await system.ask(account, Name())  # error: assignment, arg-type
    Deposit("three")  # error: arg-type
"""


def test_what_does_not_fit_is_an_error_and_the_rest_is_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    out, err, _ = api.run(["--config-file", str(root / "pyproject.toml"), "--no-incremental", str(program)])
    assert not err
    found: dict[int, set[str]] = {}
    for line, code in re.findall(r"program\.py:(\d+): error: .*\[([a-z-]+)\]", out):
        found.setdefault(int(line), set()).add(code)
    expected = {
        number: set(line.partition("# error: ")[2].split(", "))
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "# error: " in line
    }
    assert found.keys() == expected.keys(), out
    assert all(found[number] & expected[number] for number in expected), out
