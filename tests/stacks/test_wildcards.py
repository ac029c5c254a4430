"""No policy is wider than it must be without a written reason, in any environment.

In a role's policy the reason is the one that cdk-nag is given, on that role and for that wildcard.
cdk-nag does not look into key policies: their reasons are here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.stacks.conftest import ENVIRONMENTS, Assembly, AssemblyOf
from tests.stacks.permissions import listed

KMS_GUIDE = "https://docs.aws.amazon.com/kms/latest/developerguide"
ROOT_STATEMENT = (
    "AWS's default statement: it lets the account's IAM policies decide, and without it nobody "
    f"could change the key any more. {KMS_GUIDE}/key-policy-default.html"
)
LOGS_STATEMENT = (
    "AWS's statement for a log group, whose condition admits that one only. "
    "https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html"
)
ALARMS_STATEMENT = (
    "AWS's statement for CloudWatch's alarms, whose condition admits this environment's only. "
    "https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html"
)
THIS_KEY = f"In a key's policy * means this key. {KMS_GUIDE}/key-policy-overview.html"

# By principal (a service without its Region), element and wildcard.
KEY_POLICY_REASONS = {
    ("AWS", "Action", "kms:*"): ROOT_STATEMENT,
    ("AWS", "Resource", "*"): THIS_KEY,
    ("logs", "Resource", "*"): THIS_KEY,
    ("cloudwatch", "Resource", "*"): THIS_KEY,
    ("cloudwatch", "Action", "kms:GenerateDataKey*"): ALARMS_STATEMENT,
    **{
        ("logs", "Action", f"kms:{action}*"): LOGS_STATEMENT
        for action in ("Decrypt", "Describe", "Encrypt", "GenerateDataKey", "ReEncrypt")
    },
}


class Wildcard(NamedTuple):
    """One value with * or ? in it; `element` is "Action", "Resource" or "Principal"."""

    logical_id: str
    element: str
    value: str
    statement: dict[str, Any]


def wildcards(template: dict[str, Any], of_type: str | None = None) -> Iterator[Wildcard]:
    """Every wildcard in every policy statement of the template, wherever in a resource it is."""
    for logical_id, resource in template["Resources"].items():
        if of_type in (None, resource["Type"]):
            for statement in _statements(resource):
                for element in statement.keys() - {"Sid", "Effect", "Condition"}:
                    for value in _values(statement[element]):
                        if "*" in value or "?" in value:
                            yield Wildcard(logical_id, element, value, statement)


def _statements(part: object) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "Effect" in part:
            yield part
        for inner in part.values():
            yield from _statements(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _statements(inner)


def _values(element: Any) -> list[str]:
    """A value made at deployment is shown as JSON; {"AWS": "*"} is a wildcard too."""
    return [
        value if isinstance(value, str) else json.dumps(value)
        for value in (listed(element) if not isinstance(element, dict) else [element])
    ]


def reasons(assembly: Assembly) -> dict[tuple[str, str], str]:
    """The written reasons for wildcards, by (logical id of the role's policy, finding)."""
    found = {}
    for path in Path(assembly.folder).glob("**/*.metadata.json"):
        entries = json.loads(path.read_text(encoding="utf-8"))
        policies = {
            construct.removesuffix("/DefaultPolicy/Resource"): entry["data"]
            for construct, data in entries.items()
            if construct.endswith("/DefaultPolicy/Resource")
            for entry in data
            if entry["type"] == "aws:cdk:logicalId"
        }
        for construct, data in entries.items():
            for entry in data:
                if entry["type"] == "aws:cdk:acknowledged-rules":
                    for finding, reason in entry["data"].items():
                        if "AwsSolutions-IAM" in finding:
                            found[policies[construct], finding.removeprefix("Annotation::")] = (
                                reason
                            )
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_wildcard_of_a_role_has_a_reason_and_every_reason_a_wildcard(
    assembly_of: AssemblyOf, environment: str
) -> None:
    assembly = assembly_of(environment)
    used = {
        (wildcard.logical_id, f"AwsSolutions-IAM5[{wildcard.element}::{wildcard.value}]")
        for template in assembly.templates.values()
        for wildcard in wildcards(template, "AWS::IAM::Policy")
    }
    written = reasons(assembly)
    assert used == set(written)
    assert all(len(reason.split()) > 5 for reason in written.values())


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_wildcard_of_a_key_policy_has_a_reason(
    assembly_of: AssemblyOf, environment: str
) -> None:
    used = set()
    for template in assembly_of(environment).templates.values():
        for wildcard in wildcards(template, "AWS::KMS::Key"):
            ((kind, principal),) = wildcard.statement["Principal"].items()
            if kind == "Service":
                kind = principal.split(".")[0]
                assert wildcard.statement["Condition"], "a service is admitted for one purpose"
            used.add((kind, wildcard.element, wildcard.value))
    assert used == set(KEY_POLICY_REASONS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_other_policy_has_a_wildcard(assembly_of: AssemblyOf, environment: str) -> None:
    """Trust policies, and whatever resource gets a policy one day.

    But to refuse everybody: what comes to the alert topic in the clear.
    """
    for template in assembly_of(environment).templates.values():
        for wildcard in wildcards(template):
            if wildcard.statement["Effect"] == "Deny":
                assert (wildcard.element, wildcard.value) == ("Principal", "*"), wildcard
                continue
            kind = template["Resources"][wildcard.logical_id]["Type"]
            assert kind in ("AWS::IAM::Policy", "AWS::KMS::Key"), wildcard
            assert wildcard.element != "Principal", wildcard


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_statement_says_what_it_excepts(assembly_of: AssemblyOf, environment: str) -> None:
    """NotAction, NotResource and NotPrincipal are wildcards that do not look like one."""
    for template in assembly_of(environment).templates.values():
        for statement in _statements(template["Resources"]):
            assert not [element for element in statement if element.startswith("Not")]
