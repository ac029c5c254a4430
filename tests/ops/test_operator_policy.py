"""docs/operator-policy.json: what the commands ask of AWS, and nothing else."""

import ast
import json
from collections.abc import Iterator

from tests.stacks.conftest import ROOT

# Methods of a client that call nothing.
NO_CALLS = {"exceptions", "get_paginator"}


def words(node: ast.Call) -> list[str]:
    values = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
    return [value for value in values if isinstance(value, str)]


def asked(tree: ast.AST) -> Iterator[str]:
    """An IAM action for each call: `x.call("ec2", "describe_addresses")`, `pages`, `client`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        service: list[str] = []
        method = node.func.attr
        if method in ("call", "pages"):
            service, method = words(node)[:1], words(node)[1]
        elif isinstance(client := node.func.value, ast.Call):
            if isinstance(client.func, ast.Attribute) and client.func.attr == "client":
                service = words(client)
        elif isinstance(client, ast.Name) and client.id == "ssm":
            service = ["ssm"]
        if service and method not in NO_CALLS:
            yield f"{service[0]}:{''.join(word.title() for word in method.split('_'))}"


def test_the_policy_has_what_the_commands_ask_and_no_more() -> None:
    files = sorted((ROOT / "ops").rglob("*.py"))
    calls = {action for file in files for action in asked(ast.parse(file.read_text()))}
    policy = json.loads((ROOT / "docs" / "operator-policy.json").read_text())
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert len(calls) > 15
    assert allowed == calls


def test_what_can_do_harm_is_bound_to_this_project() -> None:
    """Reading is for all; each other action names a tag or a document."""
    policy = json.loads((ROOT / "docs" / "operator-policy.json").read_text())
    for statement in policy["Statement"]:
        harmless = all(
            action.split(":")[1].startswith(("Describe", "Get", "List", "Lookup"))
            for action in statement["Action"]
        )
        if not harmless:
            document = statement["Resource"].endswith(":document/AWS-RunShellScript")
            assert document or "Condition" in statement, statement["Sid"]
