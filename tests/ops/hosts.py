"""Two mail hosts whose programs answer what a test says, and the command line that asks them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops import cli, run_command
from ops.deployment import CannotTell, Deployment, MailHost
from tests.ops.deployed import EXAMPLE, LONG_AGO, Deployed

FIRST = MailHost(instance_id="i-0aaa", zone="us-east-1a", launched=LONG_AGO)
SECOND = MailHost(instance_id="i-0bbb", zone="us-east-1b", launched=LONG_AGO)

# What a host's program prints for these arguments, or why it cannot be asked.
Answer = Callable[[str, Sequence[str]], dict[str, Any] | CannotTell]


class Hosts:
    """The hosts. asked: what was run on which, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._answer = answer
        deployment = Deployed(EXAMPLE, hosts=[FIRST, SECOND])
        monkeypatch.setattr(Deployment, "load", lambda _name: deployment)
        monkeypatch.setattr(run_command, "run_json", self._run_json)

    def _run_json(
        self, _deployment: Deployment, instance_id: str, argv: Sequence[str], *, seconds: int = 60
    ) -> dict[str, Any]:
        assert seconds > 0
        self.asked.append((instance_id, list(argv)))
        answer = self._answer(instance_id, argv)
        if isinstance(answer, CannotTell):
            raise answer
        return answer

    def postern(self, *argv: str, says: str = "") -> Result:
        """The command's result, with what the operator types."""
        environment = ("--environment", "prod")
        result = CliRunner().invoke(
            cli.app, [*argv, *environment], input=says, env={"COLUMNS": "250"}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *argv: str) -> tuple[int, Any]:
        """The exit status and the one JSON document on standard output."""
        result = self.postern(*argv, "--json")
        return result.exit_code, json.loads(result.stdout)
