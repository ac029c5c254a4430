"""A healthy environment, as AWS and the DNS of the world show it; a test spoils one thing in it."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.session
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ops import doctor
from ops.deployment import CannotTell, Deployment
from ops.dns_answers import Dns
from ops.doctor import blocklists, mail_hosts
from ops.doctor.facts import Facts
from ops.run_command import Output
from ops.verdicts import Finding
from stacks.environment import Environment, load
from tests.stacks.conftest import ROOT

DOMAIN = "mail.example.com"
ADDRESSES = {"us-east-1a": "203.0.113.1", "us-east-1b": "203.0.113.2"}
SERVERS = {"ns-1.example.net": "198.51.100.1", "ns-2.example.net": "198.51.100.2"}
PUBLIC = ("1.1.1.1", "8.8.8.8")
OWN = "192.0.2.53"


def _public_key(bits: int) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key()
    return base64.b64encode(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode()


KEYS = {"s2026a": _public_key(2048), "s2026b": _public_key(2048)}
SHORT_KEY = _public_key(1024)


@dataclass
class World:
    """Name servers by their addresses: each answers from its own copy of the records.

    `answers[server][name, type]` are records; a name that is not there does not exist. `failures`:
    what happens instead, at a server or for a name at it.
    """

    answers: dict[str, dict[tuple[str, str], list[str]]] = field(default_factory=dict)
    lame: set[str] = field(default_factory=set)
    failures: dict[str | tuple[str, str], CannotTell | dns.rcode.Rcode] = field(
        default_factory=dict
    )

    def exchange(self, question: dns.message.Message, address: str) -> dns.message.Message:
        query = question.question[0]
        name = query.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(query.rdtype)
        # Only a resolver asks on others' behalf.
        assert bool(question.flags & dns.flags.RD) == (address not in SERVERS.values())
        response = dns.message.make_response(question)
        if address in SERVERS.values() and address not in self.lame:
            response.flags |= dns.flags.AA
        failure = self.failures.get((address, name), self.failures.get(address))
        if isinstance(failure, CannotTell):
            raise failure
        if failure is not None:
            response.set_rcode(failure)
            return response
        records = self.answers[address].get((name, kind), [])
        if records:
            response.answer = [dns.rrset.from_text_list(query.name, 60, "IN", kind, records)]
        elif name not in {other for other, _ in self.answers[address]}:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return dns.message.from_wire(response.to_wire())

    def publish(self, name: str, kind: str, *records: str) -> None:
        """Have these records, or none, at the zone's servers and at every resolver."""
        for answers in self.answers.values():
            answers.pop((name, kind), None)
            if records:
                answers[name, kind] = list(records)

    def fail(self, failure: CannotTell | dns.rcode.Rcode, *names: str) -> None:
        """Have every server fail, for these names only if there are any."""
        for address in self.answers:
            if not names:
                self.failures[address] = failure
            for name in names:
                self.failures[address, name] = failure


class Aws:
    """AWS's answers by service and method; each is checked against AWS's own description of it."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.asked: list[tuple[str, str]] = []

    def client(self, service: str) -> Any:
        return _Client(self, service)

    def refuse(self, service: str, method: str) -> None:
        """Have AWS refuse this call."""
        self.answers[service, method] = ClientError(
            {"Error": {"Code": "AccessDenied", "Message": "not authorized"}}, method
        )

    def call(self, service: str, method: str, arguments: dict[str, Any]) -> Any:
        operation = _operations(service)[method]
        _validate(arguments, operation.input_shape)
        self.asked.append((service, operation.name))
        answer = self.answers[service, method]
        if callable(answer):
            answer = answer(**arguments)
        if isinstance(answer, Exception):
            raise answer
        _validate(answer, operation.output_shape)
        return answer


@functools.cache
def _operations(service: str) -> dict[str, Any]:
    model = botocore.session.get_session().get_service_model(service)
    return {xform_name(name): model.operation_model(name) for name in model.operation_names}


@functools.cache
def _real_client(service: str) -> Any:
    return boto3.client(service, region_name="us-east-1")


def _validate(value: Any, shape: Any) -> None:
    report = ParamValidator().validate(value, shape)
    assert not report.has_errors(), report.generate_report()


@dataclass
class _Client:
    aws: Aws
    service: str

    def get_paginator(self, method: str) -> Any:
        aws, service = self.aws, self.service

        class Paginator:
            def paginate(self, **arguments: Any) -> Iterator[Any]:
                yield aws.call(service, method, arguments)

        # What botocore does not page through it would refuse.
        assert _real_client(service).can_paginate(method), method
        return Paginator()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda **arguments: self.aws.call(self.service, method, arguments)


@dataclass
class Hosts:
    """What programs on the hosts print: the report, the identity, and failures instead."""

    report: dict[str, Any]
    identity: dict[str, str]
    problems: list[str] = field(default_factory=list)
    failures: dict[tuple[str, ...], CannotTell] = field(default_factory=dict)

    def run(
        self, _deployment: Deployment, _instance: str, argv: tuple[str, ...], *, seconds: int
    ) -> Output:
        """Stands in for `run_command.run`."""
        assert seconds < doctor.SECONDS
        if failure := self.failures.get(argv):
            raise failure
        if argv == mail_hosts.REPORT:
            problems = "".join(f"postern-report: {problem}\n" for problem in self.problems)
            return Output(
                exit_status=1 if problems else 0, stdout=json.dumps(self.report), stderr=problems
            )
        assert argv == mail_hosts.IDENTITY
        told = "".join(f"{name}={value}\n" for name, value in self.identity.items())
        return Output(exit_status=0, stdout=told, stderr="")


@dataclass
class Patient:
    """The environment, with everything a test can spoil."""

    settings: Environment
    aws: Aws
    world: World
    hosts: Hosts
    stacks: dict[str, Any]
    record_sets: dict[tuple[str, str], list[str]]

    @property
    def deployment(self) -> Deployment:
        deployment = Deployment(self.settings)
        deployment.client = self.aws.client  # type: ignore[method-assign]
        return deployment

    @property
    def dns(self) -> Dns:
        return Dns(public=PUBLIC, own=[OWN], exchange=self.world.exchange)

    def look(self, check: Callable[[Facts], Iterator[Finding]]) -> dict[str, Finding]:
        """What `check` finds, by the finding's name."""
        findings = list(check(Facts(self.deployment, self.dns)))
        found = {finding.check: finding for finding in findings}
        assert len(found) == len(findings)  # --watch tells them apart by their names
        return found


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    settings = load(ROOT / "environments" / "example.toml")
    hosts = Hosts(report=_report(), identity=_identity(settings))
    monkeypatch.setattr(mail_hosts, "run", hosts.run)
    stacks = _stacks()
    record_sets = _record_sets(settings)
    return Patient(
        settings=settings,
        aws=_aws(stacks, record_sets),
        world=_world(record_sets),
        hosts=hosts,
        stacks=stacks,
        record_sets=record_sets,
    )


def _report() -> dict[str, Any]:
    return {
        "report": 1,
        "boot_time": "2026-11-20T00:00:00Z",
        "queue_depth": 3,
        "paced": 0,
        "warm_up": 0,
        "held": 0,
        "oldest_age_seconds": 120,
        "set_aside": 0,
        "orphans": 0,
        "undeliverable_bytes": 0,
        "dead_units": 0,
        "dead_unit_names": [],
        "queue_disk_percent": 4,
        "queue_inodes_percent": 1,
        "root_disk_percent": 31,
        "pending_reboot": 0,
        "port25_open": 1,
        "port25_checked": "gmail-smtp-in.l.google.com: 220",
        "port25_tls": 1,
        "agents": {"amazon-ssm-agent": "3.3.1", "amazon-cloudwatch-agent": "1.300"},
    }


def _identity(settings: Environment) -> dict[str, str]:
    return {
        "SENDING_DOMAIN": settings.sending_domain,
        "POSTMASTER": settings.postmaster,
        "DKIM_SELECTOR": settings.dkim.signing,
        "HELO": settings.sending_domain,
        "KEY": KEYS[settings.dkim.signing],
    }


def _record_sets(settings: Environment) -> dict[tuple[str, str], list[str]]:
    dmarc = settings.dmarc
    mechanisms = " ".join(f"ip4:{address}" for address in ADDRESSES.values())
    return {
        (DOMAIN, "A"): list(ADDRESSES.values()),
        (DOMAIN, "TXT"): [f'"v=spf1 {mechanisms} -all"'],
        (f"_dmarc.{DOMAIN}", "TXT"): [
            f'"v=DMARC1; p={dmarc.policy}; adkim=s; aspf=s; rua=mailto:{dmarc.report_address}"'
        ],
        **{
            (f"{selector}._domainkey.{DOMAIN}", "TXT"): [dkim_value(key)]
            for selector, key in KEYS.items()
        },
    }


def dkim_value(key: str) -> str:
    """A DKIM key record in Route 53's form: two quoted strings."""
    return f'"v=DKIM1; k=rsa; p={key[:200]}" "{key[200:]}"'


def _world(record_sets: dict[tuple[str, str], list[str]]) -> World:
    names = {
        ("example.com", "NS"): [f"{name}." for name in SERVERS],
        **{(name, "A"): [address] for name, address in SERVERS.items()},
        **{(reverse_name(address), "PTR"): [f"{DOMAIN}."] for address in ADDRESSES.values()},
    }
    lists = {
        (f"{point}.{blocklist.zone}", "A"): ["127.0.0.2"]
        for blocklist in blocklists.BLOCKLISTS
        for point in ("2.0.0.127",)
    }
    servers = [*SERVERS.values(), *PUBLIC, OWN]
    return World({server: {**record_sets, **names, **lists} for server in servers})


def reverse_name(address: str) -> str:
    return ".".join([*reversed(address.split(".")), "in-addr.arpa"])


def _stacks() -> dict[str, Any]:
    identity = [
        *(("Custom::ReverseDns", f"eipalloc-{zone}") for zone in ADDRESSES),
        *(("Custom::DkimKey", f"{selector}._domainkey.{DOMAIN}") for selector in KEYS),
        *(("AWS::SecretsManager::Secret", f"arn:secret:{selector}") for selector in KEYS),
    ]
    return {
        "SendingIdentity": {
            "status": "UPDATE_COMPLETE",
            "outputs": {"SendingDomain": DOMAIN},
            "resources": identity,
        },
        "Network": {
            "status": "CREATE_COMPLETE",
            "outputs": {},
            "resources": [("AWS::EC2::NatGateway", f"nat-{zone}") for zone in ADDRESSES],
        },
        "MailHosts": {
            "status": "UPDATE_COMPLETE",
            "outputs": {"SigningSelector": "s2026a"},
            "resources": [
                ("AWS::AutoScaling::AutoScalingGroup", f"group-{zone}") for zone in ADDRESSES
            ],
        },
        "Monitoring": {
            "status": "CREATE_COMPLETE",
            "outputs": {},
            "resources": [
                ("AWS::CloudWatch::Alarm", "example-bounces"),
                ("AWS::CloudWatch::Alarm", "example-queue"),
                ("AWS::SNS::Topic", "arn:aws:sns:us-east-1:111122223333:alerts"),
            ],
        },
    }


def _aws(stacks: dict[str, Any], record_sets: dict[tuple[str, str], list[str]]) -> Aws:
    aws = Aws()
    then = datetime.now(UTC) - timedelta(days=30)

    def named(name: str) -> dict[str, Any]:
        stack: dict[str, Any] = stacks[name.removeprefix("postern-example-")]
        return stack

    def describe_stacks(StackName: str) -> Any:  # noqa: N803
        if StackName.removeprefix("postern-example-") not in stacks:
            return ClientError(
                {"Error": {"Code": "ValidationError", "Message": "does not exist"}}, "x"
            )
        stack = named(StackName)
        outputs = [{"OutputKey": k, "OutputValue": v} for k, v in stack["outputs"].items()]
        described = {
            "StackName": StackName,
            "StackStatus": stack["status"],
            "CreationTime": then,
            "Outputs": outputs,
        }
        return {"Stacks": [described]}

    def list_stack_resources(StackName: str) -> Any:  # noqa: N803
        summaries = [
            {
                "LogicalResourceId": physical_id,
                "PhysicalResourceId": physical_id,
                "ResourceType": kind,
                "ResourceStatus": "CREATE_COMPLETE",
                "LastUpdatedTimestamp": then,
            }
            for kind, physical_id in named(StackName)["resources"]
        ]
        return {"StackResourceSummaries": summaries}

    def list_resource_record_sets(**arguments: Any) -> Any:
        # As Route 53: from that name on, so that what is not there gives its neighbour.
        key = (arguments["StartRecordName"], arguments["StartRecordType"])
        key = key if key in record_sets else next(iter(record_sets), key)
        found = [
            {
                "Name": f"{key[0]}.",
                "Type": key[1],
                "TTL": 60,
                "ResourceRecords": [{"Value": value} for value in record_sets.get(key, [])],
            }
        ]
        return {"ResourceRecordSets": found, "IsTruncated": False, "MaxItems": "1"}

    def describe_secret(SecretId: str) -> Any:  # noqa: N803
        selector = SecretId.rpartition(":")[2]
        return {
            "Description": f"DKIM private key {selector}._domainkey.{DOMAIN}",
            "CreatedDate": then,
        }

    aws.answers = {
        ("cloudformation", "describe_stacks"): describe_stacks,
        ("cloudformation", "list_stack_resources"): list_stack_resources,
        ("route53", "list_resource_record_sets"): list_resource_record_sets,
        ("secretsmanager", "describe_secret"): describe_secret,
        ("route53", "get_hosted_zone"): {
            "HostedZone": {"Id": "Z", "Name": "example.com.", "CallerReference": "x"},
            "DelegationSet": {"NameServers": list(SERVERS)},
        },
        ("ec2", "describe_addresses"): {
            "Addresses": [
                {
                    "AllocationId": f"eipalloc-{zone}",
                    "PublicIp": address,
                    "AssociationId": f"eipassoc-{zone}",
                }
                for zone, address in ADDRESSES.items()
            ]
        },
        ("ec2", "describe_addresses_attribute"): {
            "Addresses": [
                {
                    "AllocationId": f"eipalloc-{zone}",
                    "PublicIp": address,
                    "PtrRecord": f"{DOMAIN}.",
                }
                for zone, address in ADDRESSES.items()
            ]
        },
        ("ec2", "describe_nat_gateways"): {
            "NatGateways": [
                {
                    "NatGatewayId": f"nat-{zone}",
                    "State": "available",
                    "NatGatewayAddresses": [{"PublicIp": address}],
                }
                for zone, address in ADDRESSES.items()
            ]
        },
        ("ec2", "describe_volumes"): {
            "Volumes": [
                {
                    "VolumeId": f"vol-{zone}",
                    "State": "in-use",
                    "Size": 20,
                    "Tags": [{"Key": "postern:cell", "Value": f"example/{zone}"}],
                    "Attachments": [{"InstanceId": f"i-{zone}", "Device": "/dev/sdf"}],
                }
                for zone in ADDRESSES
            ]
        },
        ("ec2", "describe_instances"): {
            "Reservations": [
                {
                    "Instances": [
                        {
                            "InstanceId": f"i-{zone}",
                            "InstanceType": "t3.small",
                            "LaunchTime": then,
                        }
                    ]
                }
                for zone in ADDRESSES
            ]
        },
        ("autoscaling", "describe_auto_scaling_groups"): {
            "AutoScalingGroups": [
                {
                    "AutoScalingGroupName": f"group-{zone}",
                    "MinSize": 1,
                    "MaxSize": 1,
                    "DesiredCapacity": 1,
                    "DefaultCooldown": 0,
                    "AvailabilityZones": [zone],
                    "HealthCheckType": "EC2",
                    "CreatedTime": then,
                    "Instances": [
                        {
                            "InstanceId": f"i-{zone}",
                            "AvailabilityZone": zone,
                            "LifecycleState": "InService",
                            "HealthStatus": "Healthy",
                            "ProtectedFromScaleIn": False,
                        }
                    ],
                }
                for zone in ADDRESSES
            ]
        },
        ("ssm", "describe_instance_information"): {
            "InstanceInformationList": [
                {
                    "InstanceId": f"i-{zone}",
                    "PingStatus": "Online",
                    "AgentVersion": "3.3.1",
                }
                for zone in ADDRESSES
            ]
        },
        ("cloudwatch", "get_metric_statistics"): {"Datapoints": [{"Timestamp": then, "Sum": 0.0}]},
        ("cloudwatch", "describe_alarms"): {
            "MetricAlarms": [
                {
                    "AlarmName": name,
                    "StateValue": "OK",
                    "ActionsEnabled": True,
                    "AlarmDescription": f"docs/runbooks/{name}.md",
                }
                for name in ("example-bounces", "example-queue")
            ]
        },
        ("sns", "list_subscriptions_by_topic"): {
            "Subscriptions": [
                {
                    "SubscriptionArn": "arn:aws:sns:us-east-1:111122223333:alerts:1",
                    "Endpoint": "operations@example.com",
                }
            ]
        },
    }
    return aws
