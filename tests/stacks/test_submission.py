"""Other hosts submit mail only where an environment names them, and from there only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from review.cost import Prices
from stacks.environment import RFC_1918, RFC_6598, load
from stacks.submission import _networks
from tests.stacks.conftest import ROOT, Templates, only, resources, statements, synthesise_file
from tests.stacks.test_templates import CFN_LINT

CLIENTS = """[clients]
cidrs = ["10.20.0.0/16", "10.30.0.0/24"]
credentials = ["web-shop", "batch"]
"""
BY_GROUP = """[clients]
security_groups = ["sg-0123456789abcdef0"]
credentials = ["web-shop"]
port_25 = true
"""
ELB = "AWS::ElasticLoadBalancingV2"


def synthesised(folder: Path, table: str) -> Templates:
    """What example.toml makes with this table."""
    text = (ROOT / "environments" / "example.toml").read_text(encoding="utf-8")
    assert text.count("\n[tags]\n") == 1
    path = folder / "example.toml"
    path.write_text(text.replace("\n[tags]\n", f"\n{table}[tags]\n"), encoding="utf-8")
    return synthesise_file(path, folder / "cdk.out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def with_clients(folder: Path) -> Templates:
    return synthesised(folder, CLIENTS)


@pytest.fixture(scope="module")
def hosts(with_clients: Templates) -> dict[str, Any]:
    return with_clients["MailHosts"]


@pytest.fixture(scope="module")
def by_group(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return synthesised(tmp_path_factory.mktemp("groups"), BY_GROUP)["MailHosts"]


def properties(template: Mapping[str, Any], of_type: str) -> dict[str, Any]:
    found: dict[str, Any] = only(template, of_type)["Properties"]
    return found


def group_of(template: Mapping[str, Any], words: str) -> str:
    """The logical id of the security group whose description has these words."""
    (found,) = (
        logical_id
        for logical_id, group in resources(template, "AWS::EC2::SecurityGroup").items()
        if words in group["Properties"]["GroupDescription"]
    )
    return found


def ingress(template: Mapping[str, Any], group: str) -> set[tuple[int, str]]:
    """Each port with its source: a network, or a security group (of the template by logical id)."""
    rules = list(template["Resources"][group]["Properties"].get("SecurityGroupIngress", []))
    rules += [
        rule["Properties"]
        for rule in resources(template, "AWS::EC2::SecurityGroupIngress").values()
        if rule["Properties"]["GroupId"] == {"Fn::GetAtt": [group, "GroupId"]}
    ]
    found = set()
    for rule in rules:
        assert (rule["IpProtocol"], rule["FromPort"]) == ("tcp", rule["ToPort"])
        source = rule.get("CidrIp") or rule["SourceSecurityGroupId"]
        found.add(
            (rule["FromPort"], source if isinstance(source, str) else source["Fn::GetAtt"][0])
        )
    return found


def test_without_clients_there_is_none_of_it(example: Templates) -> None:
    """That nothing else changes either, the snapshots say."""
    types = {
        resource["Type"]
        for template in example.values()
        for resource in template["Resources"].values()
    }
    assert not [one for one in types if one.startswith((ELB, "AWS::CertificateManager"))]
    assert not resources(example["MailHosts"], "AWS::EC2::SecurityGroupIngress")
    assert not ingress(example["MailHosts"], group_of(example["MailHosts"], "nothing comes in"))


def test_only_the_named_networks_reach_the_load_balancer_on_587_only(
    hosts: dict[str, Any],
) -> None:
    assert ingress(hosts, group_of(hosts, "Clients of")) == {
        (587, "10.20.0.0/16"),
        (587, "10.30.0.0/24"),
    }


def test_only_the_named_groups_reach_it_and_on_25_where_that_is_asked_for(
    by_group: dict[str, Any],
) -> None:
    assert ingress(by_group, group_of(by_group, "Clients of")) == {
        (587, "sg-0123456789abcdef0"),
        (25, "sg-0123456789abcdef0"),
    }
    listeners = resources(by_group, f"{ELB}::Listener").values()
    assert {listener["Properties"]["Port"] for listener in listeners} == {25, 587}


def test_only_the_load_balancer_reaches_the_hosts(hosts: dict[str, Any]) -> None:
    balancer, own = group_of(hosts, "Clients of"), group_of(hosts, "Mail hosts of")

    assert ingress(hosts, own) == {(587, balancer), (8587, balancer)}


def test_the_load_balancer_reaches_the_hosts_only(hosts: dict[str, Any]) -> None:
    balancer, own = group_of(hosts, "Clients of"), group_of(hosts, "Mail hosts of")

    # A rule by itself takes the place of the one that EC2 gives every group: all of it.
    assert "SecurityGroupEgress" not in hosts["Resources"][balancer]["Properties"]
    rules = [r["Properties"] for r in resources(hosts, "AWS::EC2::SecurityGroupEgress").values()]
    assert {rule["ToPort"] for rule in rules} == {587, 8587}
    for rule in rules:
        assert rule["GroupId"] == {"Fn::GetAtt": [balancer, "GroupId"]}
        assert rule["DestinationSecurityGroupId"] == {"Fn::GetAtt": [own, "GroupId"]}


def test_the_load_balancer_is_internal_and_a_zone_that_fails_takes_nothing_along(
    hosts: dict[str, Any],
) -> None:
    balancer = properties(hosts, f"{ELB}::LoadBalancer")

    assert (balancer["Type"], balancer["Scheme"]) == ("network", "internal")
    assert len(balancer["Subnets"]) == 2
    assert all("private" in json.dumps(subnet) for subnet in balancer["Subnets"])
    attributes = {a["Key"]: a["Value"] for a in balancer["LoadBalancerAttributes"]}
    assert attributes["load_balancing.cross_zone.enabled"] == "true"
    assert balancer["SecurityGroups"] == [
        {"Fn::GetAtt": [group_of(hosts, "Clients of"), "GroupId"]}
    ]


def test_every_host_is_behind_it(hosts: dict[str, Any]) -> None:
    (target_group,) = resources(hosts, f"{ELB}::TargetGroup")
    groups = resources(hosts, "AWS::AutoScaling::AutoScalingGroup").values()

    assert len(groups) == 2
    for group in groups:
        assert group["Properties"]["TargetGroupARNs"] == [{"Ref": target_group}]


def test_a_host_that_cannot_have_mail_signed_gets_no_clients(hosts: dict[str, Any]) -> None:
    """What answers at that port is user_data/clients/submission-health."""
    target_group = properties(hosts, f"{ELB}::TargetGroup")

    assert (target_group["Protocol"], target_group["Port"]) == ("TCP", 587)
    assert (target_group["HealthCheckProtocol"], target_group["HealthCheckPort"]) == (
        "HTTP",
        "8587",
    )
    socket = (ROOT / "user_data/clients/submission-health.socket").read_text()
    assert "ListenStream=0.0.0.0:8587\n" in socket


def test_a_host_sees_its_clients_and_lets_them_finish(hosts: dict[str, Any]) -> None:
    target_group = properties(hosts, f"{ELB}::TargetGroup")
    attributes = {a["Key"]: a["Value"] for a in target_group["TargetGroupAttributes"]}

    assert attributes["preserve_client_ip.enabled"] == "true"
    assert attributes["deregistration_delay.timeout_seconds"] == "60"


def test_the_certificate_is_public_and_of_the_name_that_clients_use(
    hosts: dict[str, Any],
) -> None:
    certificate = properties(hosts, "AWS::CertificateManager::Certificate")

    assert certificate["DomainName"] == "submission.mail.example.com"
    assert certificate["CertificateExport"] == "ENABLED"
    assert certificate["ValidationMethod"] == "DNS"
    (option,) = certificate["DomainValidationOptions"]
    assert option["HostedZoneId"] == "Z0123456789ABCDEFGHIJ"
    record = properties(hosts, "AWS::Route53::RecordSet")
    assert (record["Name"], record["Type"]) == ("submission.mail.example.com.", "A")
    assert hosts["Outputs"]["SubmissionName"]["Value"] == "submission.mail.example.com"
    assert "DNSName" in json.dumps(hosts["Outputs"]["SubmissionLoadBalancer"]["Value"])


def test_each_client_has_a_password_that_nobody_wrote_under_the_dkim_keys_own_key(
    with_clients: Templates,
) -> None:
    secrets = resources(with_clients["MailHosts"], "AWS::SecretsManager::Secret").values()

    generated = [secret["Properties"]["GenerateSecretString"] for secret in secrets]
    assert [json.loads(one["SecretStringTemplate"]) for one in generated] == [
        {"username": "web-shop"},
        {"username": "batch"},
    ]
    for secret in secrets:
        assert "SecretString" not in secret["Properties"]
        assert secret["Properties"]["GenerateSecretString"]["PasswordLength"] == 32
        assert "DkimEncryptionKey" in secret["Properties"]["KmsKeyId"]["Fn::ImportValue"]
    text = json.dumps(with_clients)
    assert "{{resolve:" not in text
    assert "PRIVATE KEY" not in text


def test_a_host_may_read_its_own_secrets_and_no_other_role_any(with_clients: Templates) -> None:
    hosts = with_clients["MailHosts"]
    secrets = [{"Ref": name} for name in resources(hosts, "AWS::SecretsManager::Secret")]
    (certificate,) = resources(hosts, "AWS::CertificateManager::Certificate")
    roles = resources(hosts, "AWS::IAM::Role")
    assert len(roles) == 2
    for role in roles:
        by_sid = {s["Sid"]: s for s in statements(hosts, role) if "Sid" in s}
        export, read = by_sid["ExportCertificate"], by_sid["ReadPasswords"]
        assert (export["Action"], export["Resource"]) == (
            "acm:ExportCertificate",
            {"Ref": certificate},
        )
        assert read["Action"] == "secretsmanager:GetSecretValue"
        assert sorted(read["Resource"], key=str) == sorted(secrets, key=str)
        decrypt = by_sid["DecryptPasswords"]
        assert decrypt["Action"] == "kms:Decrypt"
        assert decrypt["Condition"]["StringEquals"] == {
            "kms:ViaService": "secretsmanager.us-east-1.amazonaws.com",
            "kms:EncryptionContext:SecretARN": secrets,
        }
        for statement in (export, read, decrypt):
            assert "*" not in json.dumps(statement)
    for stack, template in with_clients.items():
        if stack != "MailHosts":
            text = json.dumps(template["Resources"])
            assert "acm:" not in text
            assert "SubmissionPassword" not in text


def test_no_other_stack_changes_but_for_what_watches_it(
    with_clients: Templates, example: Templates
) -> None:
    for stack in ("SendingIdentity", "Network"):
        assert with_clients[stack] == example[stack]


def test_a_host_admits_the_named_networks_or_every_private_one_for_a_group(tmp_path: Path) -> None:
    for table, networks in (
        (CLIENTS, ("10.20.0.0/16", "10.30.0.0/24")),
        (BY_GROUP, tuple(map(str, (*RFC_1918, RFC_6598)))),
    ):
        text = (ROOT / "environments" / "example.toml").read_text(encoding="utf-8")
        path = tmp_path / "example.toml"
        path.write_text(text.replace("\n[tags]\n", f"\n{table}[tags]\n"), encoding="utf-8")
        clients = load(path).clients
        assert clients is not None
        assert _networks(clients) == networks


@pytest.mark.slow
def test_a_linter_finds_nothing_in_it(folder: Path, hosts: dict[str, Any]) -> None:
    assert hosts
    (template,) = folder.glob("cdk.out/assembly-example/*MailHosts*.template.json")
    lint = subprocess.run(
        [CFN_LINT, "--ignore-checks", "W3005", "W3010", "--", template],
        check=False,
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_what_can_be_tagged_of_it_carries_the_environments_tags(
    hosts: dict[str, Any], example: Templates
) -> None:
    new = hosts["Resources"].keys() - example["MailHosts"]["Resources"].keys()
    rules = {"AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"}
    untagged = {
        resource["Type"]
        for name in new
        for resource in [hosts["Resources"][name]]
        if {"Key": "project", "Value": "postern"} not in resource["Properties"].get("Tags", [])
    }
    assert untagged == {*rules, "AWS::Route53::RecordSet"}


def test_a_host_that_takes_no_clients_is_told(with_clients: Templates, example: Templates) -> None:
    known = resources(example["Monitoring"], "AWS::CloudWatch::Alarm")
    alarms = resources(with_clients["Monitoring"], "AWS::CloudWatch::Alarm")
    (alarm,) = (alarms[name]["Properties"] for name in alarms.keys() - known.keys())
    assert alarm["AlarmName"] == "postern/example/submission-unhealthy"
    assert alarm["AlarmDescription"].endswith("Runbook: docs/runbooks/submission-unhealthy.md")
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/NetworkELB", "UnHealthyHostCount")
    assert {dimension["Name"] for dimension in alarm["Dimensions"]} == {
        "LoadBalancer",
        "TargetGroup",
    }
    # Watching holds nothing: the load balancer can go while an alarm still names it.
    assert "Fn::ImportValue" not in json.dumps(alarm["Dimensions"])


def test_what_it_costs_is_known(with_clients: Templates, example: Templates) -> None:
    without, cost = Prices().cost(example), Prices().cost(with_clients)

    assert not cost.unknown
    # A load balancer, a certificate, two secrets, a metric with an alarm.
    assert 18 < cost.total - without.total < 20
