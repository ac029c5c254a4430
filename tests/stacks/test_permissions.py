"""No role may do anything that nobody needs, in any environment."""

import pytest
from aws_cdk import aws_lambda as lambda_

from stacks.environment import load
from tests.stacks.conftest import ENVIRONMENTS, ROOT, AssemblyOf, resources
from tests.stacks.permissions import DOCUMENTED, PROVEN, permissions

# Elements with which the emulated AWS decides as AWS does. Any other may be right and is to be
# compared with ministack's evaluator first.
STATEMENT = {"Sid", "Effect", "Action", "Resource", "Condition"}
OPERATORS = {"StringEquals"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_permission_is_needed(assembly_of: AssemblyOf, environment: str) -> None:
    """By a step of the lab that fails without it, or by a caller that AWS documents."""
    given = {permission for permission, _ in permissions(assembly_of(environment).templates)}
    assert given == set(PROVEN) | set(DOCUMENTED)


def test_nothing_that_the_lab_can_prove_is_only_documented() -> None:
    assert not set(PROVEN) & set(DOCUMENTED)
    for _caller, page in DOCUMENTED.values():
        assert page.startswith("https://docs.aws.amazon.com/")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_role_gets_its_permissions_from_one_place(
    assembly_of: AssemblyOf, environment: str
) -> None:
    """So that the list above is all of them: no managed, inline or resource-attached policy."""
    for template in assembly_of(environment).templates.values():
        for role in resources(template, "AWS::IAM::Role").values():
            assert not role["Properties"].keys() & {"ManagedPolicyArns", "Policies"}
        identities = {
            resource["Type"]
            for resource in template["Resources"].values()
            if resource["Type"].startswith("AWS::IAM::")
        }
        assert identities <= {"AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::InstanceProfile"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_policies_say_nothing_that_the_lab_would_decide_otherwise(
    assembly_of: AssemblyOf, environment: str
) -> None:
    for _permission, statement in permissions(assembly_of(environment).templates):
        assert statement.keys() <= STATEMENT
        assert statement["Effect"] == "Allow"
        assert statement.get("Condition", {}).keys() <= OPERATORS


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_role_is_assumed_by_one_service_for_this_account_only(
    assembly_of: AssemblyOf, environment: str
) -> None:
    """VPC Flow Logs looks at the condition, which AWS recommends against the confused deputy.

    EC2 and Lambda get a role by iam:PassRole, which works within the role's account only.
    """
    settings = load(ROOT / "environments" / f"{environment}.toml")
    flow_logs = {
        "StringEquals": {"aws:SourceAccount": settings.account},
        "ArnLike": {
            "aws:SourceArn": f"arn:aws:ec2:{settings.region}:{settings.account}:vpc-flow-log/*"
        },
    }
    conditions = {"ec2": None, "lambda": None, "vpc-flow-logs": flow_logs}
    trusted = set()
    for template in assembly_of(environment).templates.values():
        for role in resources(template, "AWS::IAM::Role").values():
            (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
            ((kind, principal),) = statement["Principal"].items()
            assert kind == "Service"
            service = principal.removesuffix(".amazonaws.com")
            assert statement.get("Condition") == conditions[service]
            trusted.add(service)
    assert trusted == set(conditions)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_functions_run_on_the_newest_python_that_the_cdk_knows(
    assembly_of: AssemblyOf, environment: str
) -> None:
    known = [runtime.name for runtime in lambda_.Runtime.ALL if runtime.name.startswith("python3.")]
    newest = max(known, key=lambda name: int(name.partition(".")[2]))
    for template in assembly_of(environment).templates.values():
        for function in resources(template, "AWS::Lambda::Function").values():
            assert function["Properties"]["Runtime"] == newest
