"""Each permission of the deployed roles is needed: without it AWS denies a step of the lab.

The environment is deployed by the real command line into the emulated AWS; a test stands in for
the host. The steps are the calls of the host's scripts, and the functions' own code.
"""

import base64
import hashlib
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from lab.cloud.cloud import Cloud
from lab.places import PROJECT
from review.host_files import settings_of
from stacks.custom_resources.handlers import dkim_key, reverse_dns
from stacks.custom_resources.handlers.cloudformation import NOT_PERMITTED
from stacks.environment import load
from tests.lab.cloud.conftest import running_cloud
from tests.lab.waiting import PATIENCE_SECONDS
from tests.stacks.custom_resources.requests import request
from tests.stacks.permissions import (
    DNS_FUNCTION,
    FLOW_LOG,
    HOST,
    KEY_FUNCTION,
    PROVEN,
    Permission,
    listed,
    role_named,
)

pytestmark = pytest.mark.lab

ENVIRONMENT = load(PROJECT / "environments" / "lab.toml")
# `aws SERVICE OPERATION` in a shell script, or as the beginning of a Python list.
AWS_CALL = re.compile(r"""\baws["',\s]+([a-z0-9]+)["',\s]+([a-z]+(?:-[a-z]+)+)\b""")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The lab's environment in the emulated AWS, with one instance that nobody booted."""

    cloud: Cloud

    @cached_property
    def roles(self) -> Mapping[str, str]:
        """The deployed roles' names, by what `tests.stacks.permissions` calls them."""
        return {
            role_named(stack, item["LogicalResourceId"]): item["PhysicalResourceId"]
            for stack in ("SendingIdentity", "Network", "MailHosts")
            for item in self.resources(stack)
            if item["ResourceType"] == "AWS::IAM::Role"
        }

    def resources(self, stack: str) -> list[dict[str, Any]]:
        answer = self.cloud.client("cloudformation").describe_stack_resources(
            StackName=f"postern-{ENVIRONMENT.name}-{stack}"
        )
        found: list[dict[str, Any]] = answer["StackResources"]
        return found

    @cached_property
    def instance(self) -> str:
        """The id of the instance that runs."""
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        reservations = self.cloud.client("ec2").describe_instances(Filters=running)["Reservations"]
        (instance,) = (item["Instances"][0] for item in reservations)
        return str(instance["InstanceId"])

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """What the host reads as /etc/postern/settings."""
        answer = self.cloud.client("ec2").describe_instance_attribute(
            InstanceId=self.instance, Attribute="userData"
        )
        return settings_of(base64.b64decode(answer["UserData"]["Value"]).decode())

    def session(self, role: str) -> dict[str, str]:
        """Credentials of the role, as an instance or a function gets them."""
        answer = self.cloud.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{ENVIRONMENT.account}:role/{self.roles[role]}",
            RoleSessionName="test",
        )
        credentials: dict[str, str] = answer["Credentials"]
        return credentials

    def client(self, service: str, role: str) -> Any:
        """A client with a session of the role."""
        session = self.session(role)
        return boto3.client(
            service,
            endpoint_url=self.cloud.endpoint,
            region_name=ENVIRONMENT.region,
            aws_access_key_id=session["AccessKeyId"],
            aws_secret_access_key=session["SecretAccessKey"],
            aws_session_token=session["SessionToken"],
            config=Config(proxies={}),
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """In an emulated AWS of its own, where nothing else is."""
    with running_cloud(tmp_path_factory.mktemp("permissions")) as cloud:
        hosted_zone = ENVIRONMENT.hosted_zone
        cloud.create_hosted_zone(hosted_zone_id=hosted_zone.id, name=hosted_zone.name)
        cloud.bootstrap(account=ENVIRONMENT.account)
        deployment = Deployment(cloud=cloud)
        with ThreadPoolExecutor() as executor:
            deploying = executor.submit(cloud.deploy, ENVIRONMENT.name)
            while not deploying.done():
                time.sleep(0.5)
                try:
                    _signal(deployment)
                except ValueError:
                    continue  # there is no instance yet
                except ClientError as error:
                    if error.response["Error"]["Code"] != "ValidationError":  # nobody waits yet
                        cloud.stop()  # ends the command line, too, which would wait for a signal
                        raise
            deploying.result()
        yield deployment


def _signal(deployment: Deployment) -> None:
    """What first-boot does; raises ValueError when there is no instance."""
    instance = deployment.instance
    deployment.client("cloudformation", HOST).signal_resource(
        StackName=deployment.settings["STACK_ID"],
        LogicalResourceId=deployment.settings["SIGNAL_RESOURCE"],
        UniqueId=instance,
        Status="SUCCESS",
    )


def _signal_late(deployment: Deployment) -> None:
    """A signal that no deployment waits for, which AWS refuses only once it is permitted."""
    with pytest.raises(ClientError) as refusal:
        _signal(deployment)
    if refusal.value.response["Error"]["Code"] != "ValidationError":
        raise refusal.value


def _fetch_the_files(deployment: Deployment) -> None:
    settings = deployment.settings
    answer = deployment.client("s3", HOST).get_object(
        Bucket=settings["HOST_FILES_BUCKET"], Key=settings["HOST_FILES_KEY"]
    )
    digest = hashlib.sha256(answer["Body"].read()).hexdigest()
    assert digest == settings["HOST_FILES_SHA256"]


def _fetch_the_key(deployment: Deployment) -> None:
    secrets = deployment.client("secretsmanager", HOST)
    secrets.get_secret_value(SecretId=deployment.settings["DKIM_SECRET_ARN"])


def _attach_the_queue(deployment: Deployment) -> None:
    volume = deployment.settings["QUEUE_VOLUME_ID"]
    deployment.client("ec2", HOST).attach_volume(
        VolumeId=volume, InstanceId=deployment.instance, Device="/dev/sdf"
    )
    deployment.cloud.client("ec2").detach_volume(VolumeId=volume)


def _make_a_key(deployment: Deployment) -> None:
    """The function's answer to Create: the secret has no value yet."""
    secrets = deployment.cloud.client("secretsmanager")
    secret = deployment.settings["DKIM_SECRET_ARN"]
    versions = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]
    for version, stages in versions.items():
        if "AWSCURRENT" in stages:
            secrets.update_secret_version_stage(
                SecretId=secret, VersionStage="AWSCURRENT", RemoveFromVersionId=version
            )
    try:
        _serve_key(deployment, "Create")
    finally:
        if "AWSCURRENT" not in str(secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]):
            (version, *_) = versions
            secrets.update_secret_version_stage(
                SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=version
            )


def _find_the_key(deployment: Deployment) -> None:
    """The function's answer to Update: the secret has a value."""
    _serve_key(deployment, "Update")


def _serve_key(deployment: Deployment, kind: str) -> None:
    secret = deployment.settings["DKIM_SECRET_ARN"]
    described = deployment.cloud.client("secretsmanager").describe_secret(SecretId=secret)
    properties = {
        "Domain": ENVIRONMENT.sending_domain,
        "Selector": ENVIRONMENT.dkim.signing,
        "KmsKeyId": described["KmsKeyId"],
        "SecretArn": secret,
    }
    event = {**request(kind, properties, physical_id="key"), "RequestId": str(uuid.uuid4())}
    dkim_key.serve(
        event,
        kms=deployment.client("kms", KEY_FUNCTION),
        secrets=deployment.client("secretsmanager", KEY_FUNCTION),
    )


def _set_reverse_dns(deployment: Deployment) -> None:
    ec2 = deployment.cloud.client("ec2")
    allocation = _allocation(deployment)
    ec2.reset_address_attribute(AllocationId=allocation, Attribute=reverse_dns.ATTRIBUTE)
    try:
        _serve_reverse_dns(deployment, "Create")
    finally:
        ec2.modify_address_attribute(AllocationId=allocation, DomainName=ENVIRONMENT.sending_domain)


def _give_up_reverse_dns(deployment: Deployment) -> None:
    ec2 = deployment.cloud.client("ec2")
    domain = ENVIRONMENT.sending_domain
    ec2.modify_address_attribute(AllocationId=_allocation(deployment), DomainName=domain)
    _serve_reverse_dns(deployment, "Delete")


def _allocation(deployment: Deployment) -> str:
    (address,) = deployment.cloud.client("ec2").describe_addresses()["Addresses"]
    return str(address["AllocationId"])


def _serve_reverse_dns(deployment: Deployment, kind: str) -> None:
    allocation = _allocation(deployment)
    properties = {"AllocationId": allocation, "DomainName": ENVIRONMENT.sending_domain}
    deadline = time.monotonic() + PATIENCE_SECONDS

    def wait() -> bool:
        time.sleep(0.1)
        return time.monotonic() < deadline

    event = request(kind, properties, physical_id=allocation)
    reverse_dns.serve(event, ec2=deployment.client("ec2", DNS_FUNCTION), wait=wait)


STEPS: Mapping[str, Mapping[str, Callable[[Deployment], None]]] = {
    HOST: {
        "fetch the files": _fetch_the_files,
        "fetch the key": _fetch_the_key,
        "attach the queue": _attach_the_queue,
        "signal": _signal_late,
    },
    KEY_FUNCTION: {"make a key": _make_a_key, "find the key": _find_the_key},
    DNS_FUNCTION: {"set it": _set_reverse_dns, "give it up": _give_up_reverse_dns},
}


def _denied(deployment: Deployment, role: str) -> set[str]:
    """The role's steps that AWS denies; any other failure is raised."""
    denied = set()
    for name, step in STEPS[role].items():
        try:
            step(deployment)
        except ClientError as error:
            if error.response["Error"]["Code"] not in NOT_PERMITTED:
                raise
            denied.add(name)
    return denied


@contextmanager
def _without(deployment: Deployment, permission: Permission) -> Iterator[None]:
    """The permission taken from the role's deployed policy, and given back."""
    iam = deployment.cloud.client("iam")
    role = deployment.roles[permission.role]
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    smaller = []
    for statement in document["Statement"]:
        actions = listed(statement["Action"])
        if statement.get("Sid", "") == permission.sid:
            actions = [action for action in actions if action != permission.action]
        if actions:
            smaller.append({**statement, "Action": actions})
    assert smaller != document["Statement"], f"the deployed policy has no {permission}"

    def put(statements: list[dict[str, Any]]) -> None:
        policy = json.dumps({**document, "Statement": statements})
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=policy)

    put(smaller)
    try:
        yield
    finally:
        put(document["Statement"])


@pytest.mark.parametrize("role", STEPS)
def test_a_role_may_do_all_its_steps(deployment: Deployment, role: str) -> None:
    assert _denied(deployment, role) == set()


@pytest.mark.parametrize("permission", PROVEN, ids=lambda permission: " ".join(permission))
def test_without_a_permission_its_steps_are_denied(
    deployment: Deployment, permission: Permission
) -> None:
    with _without(deployment, permission):
        assert _denied(deployment, permission.role) == PROVEN[permission]


def test_the_host_makes_no_other_calls() -> None:
    """The steps above are all that its scripts ask of AWS."""
    scripts = (path for path in (PROJECT / "user_data").rglob("*") if path.suffix == "")
    calls = {
        call for path in scripts if path.is_file() for call in AWS_CALL.findall(path.read_text())
    }
    assert calls == {
        ("s3api", "get-object"),
        ("secretsmanager", "get-secret-value"),
        ("ec2", "attach-volume"),
        ("cloudformation", "signal-resource"),
    }


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("ec2", "describe_instances", "UnauthorizedOperation"),
        ("secretsmanager", "list_secrets", "AccessDeniedException"),
        ("s3", "list_buckets", "AccessDenied"),
        ("cloudformation", "list_stacks", "AccessDenied"),
        ("route53", "list_hosted_zones", "AccessDenied"),
        ("ssm", "describe_parameters", "AccessDeniedException"),
    ],
)
def test_what_no_statement_allows_is_denied_in_the_services_own_words(
    deployment: Deployment, service: str, operation: str, code: str
) -> None:
    for role in STEPS:
        with pytest.raises(ClientError) as refusal:
            getattr(deployment.client(service, role), operation)()
        assert refusal.value.response["Error"]["Code"] == code


def test_the_flow_logs_role_is_assumed_for_no_other_purpose(deployment: Deployment) -> None:
    """The emulated AWS lets root stand for a service, but root names no flow log as source."""
    with pytest.raises(ClientError, match="AccessDenied"):
        deployment.session(FLOW_LOG)


def test_a_host_attaches_no_volume_but_its_queue(deployment: Deployment) -> None:
    volume = deployment.cloud.client("ec2").create_volume(AvailabilityZone="us-east-1a", Size=1)
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        deployment.client("ec2", HOST).attach_volume(
            VolumeId=volume["VolumeId"], InstanceId=deployment.instance, Device="/dev/sdg"
        )


def test_the_key_of_the_secret_is_used_by_way_of_secrets_manager_only(
    deployment: Deployment,
) -> None:
    secret = deployment.settings["DKIM_SECRET_ARN"]
    described = deployment.cloud.client("secretsmanager").describe_secret(SecretId=secret)
    context = {"SecretARN": secret}
    encrypted = deployment.cloud.client("kms").encrypt(
        KeyId=described["KmsKeyId"], Plaintext=b"a data key", EncryptionContext=context
    )
    for role in (HOST, KEY_FUNCTION):
        with pytest.raises(ClientError, match="AccessDenied"):
            deployment.client("kms", role).decrypt(
                CiphertextBlob=encrypted["CiphertextBlob"], EncryptionContext=context
            )


def test_the_function_makes_keys_of_its_own_domain_only(deployment: Deployment) -> None:
    secret = deployment.settings["DKIM_SECRET_ARN"]
    described = deployment.cloud.client("secretsmanager").describe_secret(SecretId=secret)
    with pytest.raises(ClientError, match="AccessDenied"):
        deployment.client("kms", KEY_FUNCTION).generate_data_key_pair(
            KeyId=described["KmsKeyId"],
            KeyPairSpec=dkim_key.KEY_PAIR_SPEC,
            EncryptionContext={"domain": "example.org"},
        )


def test_an_operation_that_the_lab_cannot_name_is_denied(deployment: Deployment) -> None:
    session = deployment.session(HOST)
    credentials = Credentials(
        session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
    )
    signed = AWSRequest("GET", f"{deployment.cloud.endpoint}/2015-03-31/no-such-path")
    SigV4Auth(credentials, "lambda", ENVIRONMENT.region).add_auth(signed)
    call = urllib.request.Request(signed.url, headers=dict(signed.headers))  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(call)  # noqa: S310
    assert "lambda:OperationUnknownToTheLab" in refusal.value.read().decode()
