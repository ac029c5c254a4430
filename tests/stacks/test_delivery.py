"""The pipeline: what runs in which order, what stops it, and what each of its roles may do.

The environments are dev.toml and prod.toml: the second in another account and another Region.
"""

import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from review.snapshots import joined
from stacks.delivery import BUILD_IMAGE, GATE_ROLE_NAME, RUNTIMES, in_order
from stacks.delivery_settings import DeliverySettings, PipelineSettings
from stacks.delivery_settings import load as load_delivery
from stacks.environment import Environment, EnvironmentDelivery, load
from tests.stacks import test_encryption as encryption
from tests.stacks import test_wildcards as judged
from tests.stacks.conftest import ROOT, Assembly, resources, statements, synthesise_file
from tests.stacks.delivered import Action, build_spec, commands, stages, synthesise_delivery
from tests.stacks.permissions import listed
from tests.stacks.test_templates import CFN_LINT

PACKAGES = json.loads((ROOT / "package.json").read_text())["devDependencies"]
GATE = "postern doctor --environment '$(ENV)' --json --settle $(SETTLE) --without Blocklists"
OWN_STACKS = ["Delivery", "eu-west-1", "dev/DoctorAccess", "prod/DoctorAccess"]


@pytest.fixture(scope="session")
def settings() -> DeliverySettings:
    return load_delivery(ROOT / "delivery.toml")


@pytest.fixture(scope="session")
def pipeline(settings: DeliverySettings) -> PipelineSettings:
    assert settings.pipeline is not None
    return settings.pipeline


@pytest.fixture(scope="session")
def environments() -> dict[str, Environment]:
    return {name: load(ROOT / "environments" / f"{name}.toml") for name in ("dev", "prod")}


@pytest.fixture(scope="session")
def delivery(
    settings: DeliverySettings,
    environments: dict[str, Environment],
    tmp_path_factory: pytest.TempPathFactory,
) -> Assembly:
    """Synthesis raises on a finding of cdk-nag's that nobody acknowledged."""
    folder = tmp_path_factory.mktemp("delivery")
    return synthesise_delivery(settings, list(environments.values()), folder)


@pytest.fixture(scope="session")
def template(delivery: Assembly) -> dict[str, Any]:
    return delivery.templates["Delivery"]


@pytest.fixture(scope="session")
def builds(delivery: Assembly, template: dict[str, Any]) -> dict[str, list[str]]:
    """Each build's commands, by "stage/action"."""
    return {
        f"{stage}/{action.name}": commands(build_spec(template, delivery.folder, action))
        for stage, actions in stages(template).items()
        for action in actions
        if action.provider == "CodeBuild"
    }


def of_kind(actions: list[Action], kind: str) -> list[int]:
    """The run orders of the actions of a stage whose name ends so."""
    return [action.run_order for action in actions if action.name.endswith(kind)]


# Order


def test_the_stages_are_check_update_and_the_environments_in_their_order(
    template: dict[str, Any],
) -> None:
    assert list(stages(template)) == [
        "Source",
        "Build",
        "UpdatePipeline",
        "Assets",
        "postern-dev",
        "postern-prod",
    ]


def test_the_order_is_the_files_and_not_the_names(environments: dict[str, Environment]) -> None:
    def ordered(name: str, order: int) -> Environment:
        delivery = EnvironmentDelivery(order=order)
        return environments[name].model_copy(update={"delivery": delivery})

    by_hand = environments["dev"].model_copy(update={"delivery": None})
    chosen = in_order([ordered("dev", 10), by_hand, ordered("prod", 9)])
    assert [environment.name for environment in chosen] == ["prod", "dev"]


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_person_may_stop_an_environment_before_anything_of_it_changes(
    template: dict[str, Any], environment: str
) -> None:
    actions = stages(template)[f"postern-{environment}"]
    checks = of_kind(actions, ".Check") + of_kind(actions, "Diff")
    approvals = of_kind(actions, ".Confirm") + of_kind(actions, "Approve")
    changes = of_kind(actions, ".Prepare") + of_kind(actions, ".Deploy")
    assert len(changes) == 2 * 5
    assert max(of_kind(actions, ".Check")) < min(of_kind(actions, ".Confirm"))
    assert max(checks) < min(of_kind(actions, "Approve") or approvals)
    assert max(approvals) < min(changes)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_doctor_is_last_so_that_a_red_one_stops_before_the_next_environment(
    template: dict[str, Any], environment: str
) -> None:
    actions = stages(template)[f"postern-{environment}"]
    (doctor,) = of_kind(actions, "Doctor")
    assert doctor > max(action.run_order for action in actions if action.name != "Doctor")
    (pipeline,) = resources(template, "AWS::CodePipeline::Pipeline").values()
    for stage in pipeline["Properties"]["Stages"]:
        assert stage.keys() == {"Name", "Actions"}, "nothing goes on after a failure"


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_stack_is_deployed_after_those_that_it_needs(
    template: dict[str, Any], environment: str
) -> None:
    order = {action.name: action.run_order for action in stages(template)[f"postern-{environment}"]}
    stacks = ["SendingIdentity", "Network", "MailHosts", "Monitoring"]
    for one, other in itertools.pairwise(stacks):
        assert order[f"{one}.Deploy"] < order[f"{other}.Prepare"]


# What is asked


def test_only_an_environment_that_asks_for_it_waits_each_time(template: dict[str, Any]) -> None:
    names = {stage: {a.name for a in actions} for stage, actions in stages(template).items()}
    assert not names["postern-dev"] & {"Diff", "Approve"}
    assert names["postern-prod"] >= {"Diff", "Approve"}
    for stage in ("postern-dev", "postern-prod"):
        assert names[stage] >= {"Permissions.Check", "Permissions.Confirm"}


def test_the_approval_leads_to_the_diff_and_says_whether_permissions_broaden(
    delivery: Assembly, template: dict[str, Any]
) -> None:
    actions = {action.name: action for action in stages(template)["postern-prod"]}
    approval = actions["Approve"].configuration
    assert approval["ExternalEntityLink"] == "#{postern-prod@Diff.LOG}"
    assert "It #{postern-prod@Diff.BROADENING}." in approval["CustomData"]
    assert "#{postern-prod@Diff.LOG}" in approval["CustomData"]
    # https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html
    assert len(approval["CustomData"]) < 500
    assert approval["NotificationArn"] == {
        "Ref": next(iter(resources(template, "AWS::SNS::Topic")))
    }
    spec = build_spec(template, delivery.folder, actions["Diff"])
    assert set(spec["env"]["exported-variables"]) == {"BROADENING", "LOG"}
    (pipeline,) = resources(template, "AWS::CodePipeline::Pipeline").values()
    namespaces = {
        action.get("Namespace")
        for stage in pipeline["Properties"]["Stages"]
        for action in stage["Actions"]
    }
    assert "postern-prod@Diff" in namespaces


@pytest.mark.parametrize(
    ("status", "said"),
    [(0, "does not broaden permissions"), (1, "BROADENS PERMISSIONS, or that could not be told")],
)
def test_permissions_that_cannot_be_compared_count_as_broadening(
    builds: dict[str, list[str]], tmp_path: Path, status: int, said: str
) -> None:
    """The step's own commands, with a `cdk` that shows a diff and fails when asked about it."""
    program = tmp_path / "cdk"
    program.write_text(f'#!/bin/sh\ncase "$*" in *--fail-on*) exit {status};; esac\n')
    program.chmod(0o755)
    script = "\n".join(c for c in builds["postern-prod/Diff"] if not c.startswith("npm "))
    done = subprocess.run(
        ["sh", "-e", "-c", f'{script}\necho "$BROADENING|$LOG"'],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "AWS_REGION": "us-east-1",
            "CODEBUILD_BUILD_ID": "project:build",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == (
        f"{said}|https://us-east-1.console.aws.amazon.com/codesuite/codebuild/projects/project/"
        "build/project:build/?region=us-east-1\n"
    )


def test_the_permissions_check_asks_about_the_environments_stacks(
    builds: dict[str, list[str]], template: dict[str, Any], delivery: Assembly
) -> None:
    """`cdk diff -a . --security-only --fail prod/*`, and a failure of it asks a person too."""
    manifest = json.loads((delivery.folder / "manifest.json").read_text())
    for environment in ("dev", "prod"):
        (check,) = (a for a in stages(template)[f"postern-{environment}"] if "Check" in a.name)
        variables = joined(check.configuration["EnvironmentVariables"])
        values = {v["name"]: v["value"] for v in json.loads(variables)}
        assert values["STAGE_PATH"] == environment
        assert manifest["artifacts"][f"assembly-{environment}"]["properties"] == {
            "directoryName": f"assembly-{environment}",
            "displayName": environment,
        }
        script = "\n".join(builds[f"postern-{environment}/Permissions.Check"])
        assert "if cdk diff -a . --security-only --fail $STAGE_PATH/\\*; then" in script
        approve = script.index("aws lambda invoke")
        assert script.index("; then") < approve < script.index("; else")


# What runs


def test_a_push_is_checked_and_synthesised_as_on_a_laptop(
    delivery: Assembly, template: dict[str, Any], builds: dict[str, list[str]]
) -> None:
    assert builds["Build/Synth"] == ["make check", "make synth"]
    (synth,) = stages(template)["Build"]
    spec = build_spec(template, delivery.folder, synth)
    assert spec["artifacts"] == {"base-directory": "cdk.out", "files": ["**/*"]}


def test_the_gate_is_doctors_whole_verdict(builds: dict[str, list[str]]) -> None:
    for environment in ("dev", "prod"):
        _profile, gate = builds[f"postern-{environment}/Doctor"]
        assert gate.endswith(f"make gate ENV={environment}")
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"^gate: .*\n\t(.*)$", makefile, re.MULTILINE) == [GATE]
    assert re.findall(r"^SETTLE \?= (.*)$", makefile, re.MULTILINE) == ["15"]


def test_nothing_is_installed_without_its_exact_version(builds: dict[str, list[str]]) -> None:
    """And the versions are package.json's, which a bot updates."""
    installed = [
        name
        for script in builds.values()
        for command in script
        for name in re.findall(r"\b(?:npm (?:i|install|ci)|npx|pip install) (?:-g )?(\S+)", command)
    ]
    assert set(installed) == {
        f"aws-cdk@{PACKAGES['aws-cdk']}",
        f"cdk-assets@{PACKAGES['cdk-assets']}",
    }
    # Of the security check, self-mutation, each Diff; of the assets' one build.
    assert sum("aws-cdk" in name for name in installed) == 2 + 1 + 1
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in PACKAGES.values())
    lock = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert lock["node_modules/cdk-assets"]["version"] == PACKAGES["cdk-assets"]


def test_every_build_runs_on_the_pinned_image(template: dict[str, Any]) -> None:
    for project in resources(template, "AWS::CodeBuild::Project").values():
        environment = project["Properties"]["Environment"]
        assert environment["Image"] == BUILD_IMAGE.image_id
        assert environment["PrivilegedMode"] is False


def test_the_builds_python_is_one_that_the_project_takes(
    delivery: Assembly, template: dict[str, Any]
) -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = tuple(map(int, required.removeprefix(">=").split(".")))
    assert tuple(map(int, RUNTIMES["python"].split("."))) >= oldest
    for stage, name in (("Build", "Synth"), ("postern-dev", "Doctor"), ("postern-prod", "Doctor")):
        (action,) = (a for a in stages(template)[stage] if a.name == name)
        spec = build_spec(template, delivery.folder, action)
        assert spec["phases"]["install"]["runtime-versions"] == RUNTIMES


def test_the_pipeline_updates_itself_before_it_deploys_anything(
    builds: dict[str, list[str]],
) -> None:
    *_, deploy = builds["UpdatePipeline/SelfMutate"]
    assert deploy.startswith("cdk -a . deploy Delivery ")


# Other accounts and Regions


def test_each_environment_is_deployed_by_its_accounts_bootstrap_roles(
    template: dict[str, Any], environments: dict[str, Environment], pipeline: PipelineSettings
) -> None:
    for name, environment in environments.items():
        account, region = environment.account, environment.region
        changes = [
            action
            for action in stages(template)[f"postern-{name}"]
            if action.provider == "CloudFormation"
        ]
        assert len(changes) == 10
        for action in changes:
            role = (
                f"arn:<AWS::Partition>:iam::{account}:role/"
                f"cdk-hnb659fds-{{}}-role-{account}-{region}"
            )
            assert action.role == role.format("deploy")
            assert action.region in (region, "" if region == pipeline.region else region)
            if action.name.endswith(".Prepare"):
                assert joined(action.configuration["RoleArn"]) == role.format("cfn-exec")


@pytest.mark.parametrize(("stack", "environment"), [("Delivery", "dev"), ("eu-west-1", "prod")])
def test_artifacts_are_read_by_the_deploying_role_of_that_region_and_nobody_elses(
    delivery: Assembly,
    environments: dict[str, Environment],
    pipeline: PipelineSettings,
    stack: str,
    environment: str,
) -> None:
    target = environments[environment]
    deploying = (
        f"arn:<AWS::Partition>:iam::{target.account}:role/"
        f"cdk-hnb659fds-deploy-role-{target.account}-{target.region}"
    )
    template = delivery.templates[stack]
    (bucket,) = resources(template, "AWS::S3::Bucket").values()
    encryption = bucket["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert [rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in encryption] == [
        "aws:kms"
    ]
    (artifacts_key,) = (
        key
        for key in resources(template, "AWS::KMS::Key").values()
        if "cdk-hnb659fds-deploy-role" in json.dumps(key)
    )
    (policy,) = resources(template, "AWS::S3::BucketPolicy").values()
    for part in (
        artifacts_key["Properties"]["KeyPolicy"]["Statement"],
        policy["Properties"]["PolicyDocument"]["Statement"],
    ):
        readers = {
            joined(statement["Principal"]["AWS"])
            for statement in part
            if statement["Effect"] == "Allow"
        }
        own = f"arn:aws:iam::{pipeline.account}:"
        assert {reader for reader in readers if not reader.startswith(own)} == {deploying}


def test_the_support_stack_is_named_after_the_pipeline(delivery: Assembly) -> None:
    manifest = json.loads((delivery.folder / "manifest.json").read_text())
    names = {
        artifact["properties"]["stackName"]
        for artifact in manifest["artifacts"].values()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert names == {"postern-delivery", "postern-delivery-support-eu-west-1"}


@pytest.mark.parametrize("stack", ["Delivery", "eu-west-1"])
def test_artifacts_are_private_encrypted_on_the_way_and_not_kept(
    delivery: Assembly, stack: str
) -> None:
    template = delivery.templates[stack]
    (bucket,) = resources(template, "AWS::S3::Bucket").values()
    properties = bucket["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = properties["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 30)
    assert bucket["DeletionPolicy"] == "Delete"
    (policy,) = resources(template, "AWS::S3::BucketPolicy").values()
    assert any(
        statement["Effect"] == "Deny"
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    )


# Permissions


def test_the_source_may_use_the_connection_by_its_names_old_and_new(
    template: dict[str, Any], pipeline: PipelineSettings
) -> None:
    (source,) = stages(template)["Source"]
    assert source.configuration["ConnectionArn"] == pipeline.connection_arn
    assert source.configuration["FullRepositoryId"] == "example/postern"
    role = source.role.removeprefix("<").removesuffix(".Arn>")
    uses = {
        action: statement["Resource"]
        for statement in statements(template, role)
        for action in listed(statement["Action"])
        if action.endswith(":UseConnection")
    }
    assert uses == {
        "codestar-connections:UseConnection": pipeline.connection_arn,
        "codeconnections:UseConnection": pipeline.connection_arn,
    }


def test_the_diff_reads_with_the_lookup_role_only(
    template: dict[str, Any], environments: dict[str, Environment]
) -> None:
    account, region = environments["prod"].account, environments["prod"].region
    assumed = [
        statement["Resource"]
        for role in resources(template, "AWS::IAM::Role")
        if "Diff" in role
        for statement in statements(template, role)
        if "sts:AssumeRole" in listed(statement["Action"])
    ]
    assert assumed == [f"arn:aws:iam::{account}:role/cdk-hnb659fds-lookup-role-{account}-{region}"]


def test_the_gate_may_be_doctor_and_nothing_else(
    template: dict[str, Any], environments: dict[str, Environment], pipeline: PipelineSettings
) -> None:
    ((gate, role),) = (
        (logical_id, role)
        for logical_id, role in resources(template, "AWS::IAM::Role").items()
        if role["Properties"].get("RoleName") == GATE_ROLE_NAME
    )
    assert role["Properties"]["AssumeRolePolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "codebuild.amazonaws.com"},
            "Condition": {"StringEquals": {"aws:SourceAccount": pipeline.account}},
        }
    ]
    doctors = [
        f"arn:aws:iam::{environment.account}:role/postern-{name}-doctor"
        for name, environment in environments.items()
    ]
    assert [
        statement["Resource"]
        for statement in statements(template, gate)
        if "sts:AssumeRole" in listed(statement["Action"])
    ] == [doctors]
    for project in resources(template, "AWS::CodeBuild::Project").values():
        is_gate = "make gate" in joined(project["Properties"]["Source"]["BuildSpec"])
        assert (project["Properties"]["ServiceRole"] == {"Fn::GetAtt": [gate, "Arn"]}) == is_gate


def test_every_role_is_assumed_by_one_service_or_by_the_pipeline(template: dict[str, Any]) -> None:
    roles = resources(template, "AWS::IAM::Role")
    pipeline_role = next(
        role
        for role in roles.values()
        if "codepipeline.amazonaws.com"
        in json.dumps(role["Properties"]["AssumeRolePolicyDocument"])
    )
    for role in roles.values():
        (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRole"
        ((kind, principal),) = statement["Principal"].items()
        if kind == "Service":
            assert principal.split(".")[0] in ("codebuild", "codepipeline", "lambda")
        else:
            (trusted, attribute) = principal["Fn::GetAtt"]
            assert (roles[trusted], attribute) == (pipeline_role, "Arn")


def test_every_wildcard_of_a_role_has_a_reason_and_every_reason_a_wildcard(
    delivery: Assembly,
) -> None:
    own = Assembly({name: delivery.templates[name] for name in OWN_STACKS}, delivery.folder)
    used = {
        (wildcard.logical_id, as_found(wildcard.element, wildcard.value))
        for template in own.templates.values()
        for wildcard in judged.wildcards(template, "AWS::IAM::Policy")
    }
    written = {
        key: reason
        for key, reason in judged.reasons(delivery).items()
        if any(key[0] in template["Resources"] for template in own.templates.values())
    }
    basic = {key for key in written if "AWSLambdaBasicExecutionRole" in key[1]}
    assert len(basic) == 1
    assert used == set(written) - basic
    assert all(len(reason.split()) > 5 for reason in written.values())


def as_found(element: str, value: str) -> str:
    """cdk-nag's words for a wildcard that `judged.wildcards` shows as JSON."""
    text = joined(json.loads(value)) if value.startswith("{") else value
    return f"AwsSolutions-IAM5[{element}::{text}]"


def test_every_wildcard_of_a_key_policy_has_a_reason(delivery: Assembly) -> None:
    """In addition to the environments' keys: the CDK's grants to those who read artifacts."""
    artifacts = {("AWS", "Action", f"kms:{action}*") for action in ("GenerateDataKey", "ReEncrypt")}
    for name in OWN_STACKS:
        for wildcard in judged.wildcards(delivery.templates[name], "AWS::KMS::Key"):
            ((kind, principal),) = wildcard.statement["Principal"].items()
            if kind == "Service":
                kind = principal.split(".")[0]
            found = (kind, wildcard.element, wildcard.value)
            assert found in judged.KEY_POLICY_REASONS or found in artifacts, found


# Encryption

KEEPS_NO_DATA = {
    *encryption.KEEPS_NO_DATA,
    "AWS::CodeBuild::Project",  # its log is the log group, its artifacts are in the bucket
    "AWS::CodePipeline::Pipeline",
    "AWS::KMS::Alias",
    "AWS::S3::BucketPolicy",
}


def test_whatever_keeps_data_is_encrypted(delivery: Assembly) -> None:
    def is_encrypted(kind: str, properties: dict[str, Any], template: dict[str, Any]) -> bool:
        if kind == "AWS::S3::Bucket":
            (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
            return bool(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"])
        if kind == "AWS::SNS::Topic":  # of the pipeline's roles, not of CloudWatch
            return properties["KmsMasterKeyId"]["Fn::GetAtt"][0] in resources(
                template, "AWS::KMS::Key"
            )
        if joined(properties.get("LogGroupName", "")).startswith("/aws/lambda/"):
            # Under CloudWatch's own key: it names stages and actions of the pipeline.
            return bool(properties["RetentionInDays"] == 90)
        return bool(encryption.JUDGED[kind](properties, template))

    for name in OWN_STACKS:
        template = delivery.templates[name]
        for logical_id, resource in template["Resources"].items():
            kind, properties = resource["Type"], resource["Properties"]
            if kind not in KEEPS_NO_DATA:
                assert is_encrypted(kind, properties, template), logical_id
        for key in resources(template, "AWS::KMS::Key").values():
            assert key["Properties"]["EnableKeyRotation"] is True


def test_every_build_writes_to_the_log_group_that_is_encrypted(template: dict[str, Any]) -> None:
    ((group, _),) = (
        (logical_id, log)
        for logical_id, log in resources(template, "AWS::Logs::LogGroup").items()
        if log["Properties"]["LogGroupName"] == "/postern/delivery/builds"
    )
    for project in resources(template, "AWS::CodeBuild::Project").values():
        logs = project["Properties"]["LogsConfig"]["CloudWatchLogs"]
        assert logs == {"Status": "ENABLED", "GroupName": {"Ref": group}}
        role = project["Properties"]["ServiceRole"]["Fn::GetAtt"][0]
        assert any(
            {"Fn::GetAtt": [group, "Arn"]} in resources_of(statement)
            and "logs:PutLogEvents" in listed(statement["Action"])
            for statement in statements(template, role)
        )


def resources_of(statement: dict[str, Any]) -> list[Any]:
    resource = statement["Resource"]
    return resource if isinstance(resource, list) else [resource]


# The gate's access


def doctor_statements(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (policy,) = resources(template, "AWS::IAM::Policy").values()
    yield from policy["Properties"]["PolicyDocument"]["Statement"]


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_gate_may_what_the_operators_policy_says_of_doctor(
    delivery: Assembly, environment: str
) -> None:
    document = json.loads((ROOT / "docs" / "operator-policy.json").read_text())
    policy = {
        statement["Sid"]: set(statement["Action"])
        for statement in document["Statement"]
        if statement["Sid"].startswith("Doctor")
    }
    given = {
        statement["Sid"]: set(listed(statement["Action"]))
        for statement in doctor_statements(delivery.templates[f"{environment}/DoctorAccess"])
    }
    assert given == policy


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_gates_access_is_to_this_environment_only(
    delivery: Assembly, environments: dict[str, Environment], environment: str
) -> None:
    target = environments[environment]
    here = f":{target.region}:{target.account}:"
    for statement in doctor_statements(delivery.templates[f"{environment}/DoctorAccess"]):
        for resource in listed(statement["Resource"]):
            if resource == "*":
                region = {"StringEquals": {"aws:RequestedRegion": target.region}}
                assert statement["Condition"] == region
            elif "route53" in resource:
                assert resource.endswith(f":hostedzone/{target.hosted_zone.id}")
            elif "document/" in resource:
                assert resource == f"arn:aws:ssm:{target.region}::document/AWS-RunShellScript"
            else:
                assert here in resource
    (hosts,) = (
        statement
        for statement in doctor_statements(delivery.templates[f"{environment}/DoctorAccess"])
        if statement["Sid"] == "DoctorAsksMailHosts"
    )
    cells = hosts["Condition"]["StringEquals"]["ssm:resourceTag/postern:cell"]
    assert {cell.partition("/")[0] for cell in listed(cells)} == {environment}


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_doctors_names_are_those_of_the_environments_templates(
    delivery: Assembly, environment: str
) -> None:
    """What CloudFormation names has the stack's or the resource's name in it."""
    secrets = resources(
        delivery.templates[f"{environment}/SendingIdentity"], "AWS::SecretsManager::Secret"
    )
    assert secrets
    assert all(logical_id.startswith("DkimPrivateKey") for logical_id in secrets)
    (topic,) = resources(
        delivery.templates[f"{environment}/Monitoring"], "AWS::SNS::Topic"
    ).values()
    assert "TopicName" not in topic["Properties"]
    hosts = json.dumps(delivery.templates[f"{environment}/MailHosts"])
    for statement in doctor_statements(delivery.templates[f"{environment}/DoctorAccess"]):
        if statement["Sid"] == "DoctorAsksMailHosts":
            for cell in listed(
                statement["Condition"]["StringEquals"]["ssm:resourceTag/postern:cell"]
            ):
                assert f'"Value": "{cell}"' in hosts


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_only_the_pipelines_gate_becomes_doctor(
    delivery: Assembly, pipeline: PipelineSettings, environment: str
) -> None:
    (role,) = resources(
        delivery.templates[f"{environment}/DoctorAccess"], "AWS::IAM::Role"
    ).values()
    assert role["Properties"]["RoleName"] == f"postern-{environment}-doctor"
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert "root" in json.dumps(trust["Principal"])
    assert pipeline.account in json.dumps(trust["Principal"])
    gate = f"arn:aws:iam::{pipeline.account}:role/{GATE_ROLE_NAME}"
    assert trust["Condition"] == {"ArnEquals": {"aws:PrincipalArn": gate}}


def test_delivery_changes_nothing_of_the_environments_own_stacks(
    delivery: Assembly, tmp_path: Path
) -> None:
    by_hand = synthesise_file(ROOT / "environments" / "prod.toml", tmp_path)
    assert "DoctorAccess" not in by_hand
    for stack, template in by_hand.items():
        assert template == delivery.templates[f"prod/{stack}"], stack


def test_cfn_lint_finds_nothing(delivery: Assembly) -> None:
    templates = [
        *delivery.folder.glob("*.template.json"),
        *delivery.folder.glob("*/*DoctorAccess*.template.json"),
    ]
    assert len(templates) == len(OWN_STACKS)
    lint = subprocess.run(
        # W3005: as for the environments. E3703 is taste, and the CDK joins.
        [CFN_LINT, "--ignore-checks", "W3005", "E3703", "--", *templates],
        check=False,
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr
