"""Every command says in one sentence why it could tell nothing, and ends with status 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from botocore.exceptions import ClientError, NoCredentialsError
from typer.testing import CliRunner, Result

from ops.cli import app
from ops.deployment import Deployment
from tests.stacks.conftest import ROOT

ACCOUNT = "111122223333"  # of example.toml
COMMANDS = {
    "doctor": [],
    "dkim status": [],
    "dkim rotate": [],
    "addresses": [],
    "addresses list": [],
    "addresses release": ["192.0.2.1", "--yes"],
    "port25-request": [],
    "queue list": [],
    "queue show": ["id"],
    "queue retry": ["id"],
    "queue hold": ["id"],
    "queue release": ["id"],
    "queue delete": ["id", "--yes"],
    "suppressions list": [],
    "suppressions add": ["a@example.org"],
    "suppressions remove": ["a@example.org"],
    "send-test": ["--to=a@example.org"],
    "zones": [],
    "zones list": [],
    "zones leaving": [],
    "zones drain": ["us-east-1b", "--yes"],
    "zones open": ["us-east-1b"],
}
# These two tell what there is without a stack.
NEED_A_STACK = [name for name in COMMANDS if name.split()[0] not in ("doctor", "addresses")]


def _refusal(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


class Client:
    """Every service of an account in which nothing is deployed, or that does not let us in."""

    def __init__(self, identity: str | Exception) -> None:
        self.identity = identity

    def get_caller_identity(self) -> dict[str, str]:
        if isinstance(self.identity, Exception):
            raise self.identity
        return {"Account": self.identity}

    def describe_stacks(self, **_: str) -> None:
        raise _refusal("ValidationError", "Stack with id x does not exist")

    def get_paginator(self, method: str) -> Client:
        assert method == "list_secrets"
        return self

    def paginate(self) -> list[dict[str, Any]]:
        return [{"SecretList": []}]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def postern(command: str, *options: str, environment: str = "example") -> Result:
    """The result, which is no traceback."""
    argv = [*command.split(), *COMMANDS[command], "--environment", environment, *options]
    result = CliRunner().invoke(app, argv)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def assert_told(command: str, *words: str, environment: str = "example") -> None:
    """That the error is all that is said, for a person and for a program."""
    shown = postern(command, environment=environment)
    assert (shown.exit_code, shown.stdout) == (2, "")
    document = postern(command, "--json", environment=environment)
    told = json.loads(document.stdout)
    assert (document.exit_code, told.keys()) == (2, {"verdict", "error"})
    assert told["verdict"] == "unknown"
    for word in words:
        assert word in told["error"]
        assert word in " ".join(shown.stderr.split())


def account(monkeypatch: pytest.MonkeyPatch, identity: str | Exception) -> None:
    monkeypatch.setattr(Deployment, "client", lambda _deployment, _service: Client(identity))


def _names(command: Any, *above: str) -> Iterator[str]:
    groups = getattr(command, "commands", {})
    if not groups or command.invoke_without_command:
        yield " ".join(above)
    for name, below in groups.items():
        if (*above, name) not in (("lab",), ("review",)):  # not the operator's
            yield from _names(below, *above, name)


def test_every_command_is_tried_here() -> None:
    assert set(_names(typer.main.get_command(app))) == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_environment_that_is_not_there(command: str) -> None:
    assert_told(command, "nowhere.toml: there is no such file", "lab", environment="nowhere")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_wrong_account(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account(monkeypatch, "999999999999")
    assert_told(command, "of account 999999999999", f"says {ACCOUNT}", "AWS_PROFILE")


@pytest.mark.parametrize(
    "error", [NoCredentialsError(), _refusal("ExpiredToken", "The security token is expired")]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_credentials_or_such_as_have_expired(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(monkeypatch, error)
    assert_told(command, "sts:GetCallerIdentity", "Sign in")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_profile_that_is_not_there(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert_told(command, "no-such-profile")


@pytest.mark.parametrize("command", NEED_A_STACK)
def test_nothing_deployed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account(monkeypatch, ACCOUNT)
    assert_told(command, "There is no stack postern-example-", "cdk --context environment=example")


@pytest.mark.parametrize("command", ["suppressions add", "suppressions remove"])
def test_an_option_is_no_address(command: str) -> None:
    argv = [*command.split(), "--environment", "example", "--json", "--", "--days=7"]
    result = CliRunner().invoke(app, argv)
    assert (result.exit_code, json.loads(result.stdout)["error"]) == (
        2,
        "'--days=7' is not an address.",
    )


def test_a_resolver_is_an_address() -> None:
    result = CliRunner().invoke(app, ["doctor", "-e", "example", "--resolver", "dns.example.org"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not an IP address" in " ".join(result.stderr.replace("│", " ").split())


def test_no_option_is_overlooked_before_a_command() -> None:
    argv = ["addresses", "--json", "list", "--environment", "nowhere"]
    result = CliRunner().invoke(app, argv)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "write options after list" in " ".join(result.stderr.replace("│", " ").split())
