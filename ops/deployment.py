"""What is deployed of an environment: read from AWS, never from the templates."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from ops.command_lines import cdk_deploy
from stacks.environment import SUFFIX_VARIABLE, Environment, load

ENVIRONMENTS = Path("environments")
STACKS = ("SendingIdentity", "Network", "MailHosts", "Monitoring")

# An operator waits for the answer, and a second try is what a lost packet needs.
_CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3})
# What services say of credentials that have expired or were never good.
_NOT_SIGNED_IN = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "AuthFailure",
        "SignatureDoesNotMatch",
    }
)


class CannotTell(Exception):
    """AWS could not be asked, or did not say; the text is for the operator, with what to do."""


class NotDeployed(CannotTell):
    """A stack that the question is about does not exist."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A deployed stack."""

    name: str
    status: str
    outputs: Mapping[str, str]
    resources: Sequence[Resource]

    def of_type(self, resource_type: str) -> list[Resource]:
        """Its resources of a CloudFormation type, in the template's order."""
        return [r for r in self.resources if r.resource_type == resource_type]


@dataclass(frozen=True, kw_only=True)
class Resource:
    logical_id: str
    physical_id: str
    resource_type: str
    changed: datetime
    """When CloudFormation was last done with it: it may be older, never younger."""


@dataclass(frozen=True, kw_only=True)
class MailHost:
    """An instance of a cell's Auto Scaling group."""

    instance_id: str
    zone: str
    launched: datetime


class Deployment:
    """One environment's settings, and what AWS holds of it, asked when it is needed and once.

    Making it and every method raise CannotTell when AWS can't be asked: without credentials, with
    those of another account, or when a call is refused. Several threads may ask at once.
    """

    def __init__(self, settings: Environment) -> None:
        self.settings = settings
        try:
            self._session = boto3.Session(region_name=settings.region)
        except BotoCoreError as error:  # AWS_PROFILE names none
            raise CannotTell(f"There are no credentials to ask AWS with: {error}") from error
        self._clients: dict[str, Any] = {}
        self._stacks: dict[str, Stack] = {}
        self._lock = threading.Lock()  # a boto3 session makes one client at a time
        self._reading = threading.Lock()

    @classmethod
    def load(cls, name: str, *, folder: Path = ENVIRONMENTS) -> Deployment:
        """The environment of this name, or with POSTERN_SUFFIX its sandbox.

        Raises:
            InvalidEnvironment: there is no such file, or it has a fault; nothing was asked yet.
            CannotTell: the credentials are not those of the environment's account, or this user
                may not read the file.
        """
        file = folder / f"{name}.toml"
        try:
            settings = load(file, suffix=os.environ.get(SUFFIX_VARIABLE) or None)
        except OSError as error:
            raise CannotTell(f"{file} could not be read: {error}") from error
        deployment = cls(settings)
        deployment._require_its_account()
        return deployment

    def client(self, service: str) -> Any:
        """A boto3 client in the environment's Region; `call` and `pages` explain its errors."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._session.client(service, config=_CONFIG)
            return self._clients[service]

    def call(self, service: str, method: str, **arguments: Any) -> dict[str, Any]:
        """The answer of one call.

        Raises:
            CannotTell: it failed; the text names the call and AWS's words.
        """
        try:
            answer: dict[str, Any] = getattr(self.client(service), method)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise CannotTell(_explained(service, method, error)) from error
        return answer

    def pages(self, service: str, method: str, key: str, **arguments: Any) -> list[Any]:
        """Every item under `key` of a call whose answer comes in pages; raises CannotTell."""
        try:
            pages = self.client(service).get_paginator(method).paginate(**arguments)
            return [item for page in pages for item in page[key]]
        except (BotoCoreError, ClientError) as error:
            raise CannotTell(_explained(service, method, error)) from error

    def stack_name(self, stack: str) -> str:
        """CloudFormation's name of one of `STACKS`."""
        return f"postern-{self.settings.name}-{stack}"

    def stack(self, stack: str) -> Stack:
        """One of `STACKS` as deployed.

        Raises:
            NotDeployed: there is none.
        """
        with self._reading:
            if stack not in self._stacks:
                self._stacks[stack] = self._read_stack(stack)
            return self._stacks[stack]

    def hosts(self) -> list[MailHost]:
        """The mail hosts in service, by zone; raises NotDeployed, or CannotTell when none runs."""
        groups = [
            resource.physical_id
            for resource in self.stack("MailHosts").of_type("AWS::AutoScaling::AutoScalingGroup")
        ]
        if not groups:  # AWS, asked for none by name, would give every group of the account
            raise CannotTell(
                f"{self.stack_name('MailHosts')} has no Auto Scaling group: it was not deployed to "
                f"its end. aws cloudformation describe-stack-events says why."
            )
        answer = self.call(
            "autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=groups
        )
        zones = {
            instance["InstanceId"]: instance["AvailabilityZone"]
            for group in answer["AutoScalingGroups"]
            for instance in group["Instances"]
            if instance["LifecycleState"] == "InService"
        }
        if not zones:
            raise CannotTell(
                f"No mail host of {self.settings.name} is in service. See the activities of the "
                f"Auto Scaling groups {', '.join(groups)}; the next host starts by itself."
            )
        reservations = self.pages(
            "ec2", "describe_instances", "Reservations", InstanceIds=list(zones)
        )
        hosts = [
            MailHost(
                instance_id=instance["InstanceId"],
                zone=zones[instance["InstanceId"]],
                launched=instance["LaunchTime"],
            )
            for reservation in reservations
            for instance in reservation["Instances"]
        ]
        return sorted(hosts, key=lambda host: host.zone)

    def _read_stack(self, stack: str) -> Stack:
        name = self.stack_name(stack)
        try:
            answer = self.client("cloudformation").describe_stacks(StackName=name)
        except ClientError as error:
            if "does not exist" in str(error):
                raise NotDeployed(
                    f"There is no stack {name} in {self.settings.account}, "
                    f"{self.settings.region}. Deploy it: {cdk_deploy(self.settings)}"
                ) from error
            raise CannotTell(_explained("cloudformation", "describe_stacks", error)) from error
        except BotoCoreError as error:
            raise CannotTell(_explained("cloudformation", "describe_stacks", error)) from error
        (described,) = answer["Stacks"]
        resources = self.pages(
            "cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=name
        )
        return Stack(
            name=name,
            status=described["StackStatus"],
            outputs={o["OutputKey"]: o["OutputValue"] for o in described.get("Outputs", [])},
            resources=[
                Resource(
                    logical_id=resource["LogicalResourceId"],
                    physical_id=resource.get("PhysicalResourceId", ""),
                    resource_type=resource["ResourceType"],
                    changed=resource["LastUpdatedTimestamp"],
                )
                for resource in resources
                # One that was removed from the template and kept is not the stack's any more.
                if resource["ResourceStatus"] not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
            ],
        )

    def _require_its_account(self) -> None:
        account = self.call("sts", "get_caller_identity")["Account"]
        if account != self.settings.account:
            raise CannotTell(
                f"These credentials are of account {account}, and {self.settings.file} says "
                f"{self.settings.account}. Take that account's (AWS_PROFILE), or mend the file."
            )


def _explained(service: str, method: str, error: BotoCoreError | ClientError) -> str:
    name = "".join(word.title() for word in method.split("_"))
    text = f"AWS did not answer {service}:{name}: {error}"
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if isinstance(error, NoCredentialsError) or code in _NOT_SIGNED_IN:
        text += ". Sign in, or choose other credentials (AWS_PROFILE)."
    return text
