"""The operator's laptop: this machine's programs on the lab's Internet, and nothing of it stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.places import PROJECT

pytestmark = pytest.mark.lab

# Regional names and those without a Region, as boto3 chooses them.
ENDPOINTS = {
    "ec2": "https://ec2.us-east-1.amazonaws.com",
    "cloudwatch": "https://monitoring.us-east-1.amazonaws.com",
    "logs": "https://logs.us-east-1.amazonaws.com",
    "ssm": "https://ssm.us-east-1.amazonaws.com",
    "sts": "https://sts.us-east-1.amazonaws.com",
    "cloudformation": "https://cloudformation.us-east-1.amazonaws.com",
    "secretsmanager": "https://secretsmanager.us-east-1.amazonaws.com",
    "route53": "https://route53.amazonaws.com",
    "iam": "https://iam.amazonaws.com",
}
CALLS = {
    "ec2": "describe_vpcs",
    "cloudwatch": "describe_alarms",
    "logs": "describe_log_groups",
    "ssm": "describe_instance_information",
    "sts": "get_caller_identity",
    "cloudformation": "describe_stacks",
    "secretsmanager": "list_secrets",
    "route53": "list_hosted_zones",
    "iam": "list_roles",
}


def on_the_laptop(
    lab: Lab, *argv: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        lab.operator_command(*argv),
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def python(lab: Lab, program: str) -> str:
    """What a Python program prints on the laptop."""
    done = on_the_laptop(lab, sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("service", ENDPOINTS)
def test_aws_answers_at_its_own_names(lab: Lab, service: str) -> None:
    program = (
        f"import boto3; client = boto3.client({service!r}); client.{CALLS[service]}(); "
        "print(client.meta.endpoint_url)"
    )
    assert python(lab, program) == ENDPOINTS[service]


def test_neither_proxy_nor_account_of_the_machine_is_there(lab: Lab) -> None:
    theirs = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:9",
        "AWS_PROFILE": "production",
        "AWS_SESSION_TOKEN": "token",
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "*",
    }
    found = on_the_laptop(lab, "env", environment={**os.environ, **theirs}).stdout
    names = {line.partition("=")[0] for line in found.splitlines()}
    assert not names & theirs.keys()
    assert {"AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"} <= names


def test_the_dns_is_the_lab_s_and_so_are_the_public_resolvers(lab: Lab) -> None:
    program = (
        "import dns.resolver, dns.reversename\n"
        "resolver = dns.resolver.Resolver()\n"
        "for servers in (resolver.nameservers, ['1.1.1.1'], ['8.8.8.8']):\n"
        "    resolver.nameservers = servers\n"
        f"    print(resolver.resolve({lab.environment.sending_domain!r}, 'A')[0])\n"
    )
    (address,) = lab.cloud.client("ec2").describe_addresses()["Addresses"]
    assert python(lab, program).splitlines() == [address["PublicIp"]] * 3


def test_each_server_of_the_hosted_zone_can_be_found_and_asked(lab: Lab) -> None:
    program = (
        "import dns.resolver\n"
        "for server in dns.resolver.resolve('example.com', 'NS'):\n"
        "    resolver = dns.resolver.Resolver(configure=False)\n"
        "    address = str(dns.resolver.resolve(server.target, 'A')[0])\n"
        "    resolver.nameservers = [address]\n"
        f"    resolver.resolve({lab.environment.sending_domain!r}, 'TXT')\n"
        "    print(server.target.to_text(omit_final_dot=True), address)\n"
    )
    told = dict(line.split() for line in python(lab, program).splitlines())
    zone = lab.cloud.client("route53").get_hosted_zone(Id=lab.environment.hosted_zone.id)
    assert told.keys() == set(zone["DelegationSet"]["NameServers"])
    assert set(told.values()) == {"198.51.100.53", "198.51.100.54"}


def test_it_has_the_machine_s_files_and_leaves_the_machine_as_it_was(
    lab: Lab, tmp_path: Path
) -> None:
    settings = Path("/etc/resolv.conf").read_bytes()
    mounts = Path("/proc/self/mountinfo").read_text()
    written = on_the_laptop(lab, "sh", "-c", f"cat /etc/resolv.conf >{tmp_path}/seen; exit 7")

    assert written.returncode == 7
    assert (tmp_path / "seen").read_text() == "nameserver 198.51.100.53\n"
    assert Path("/etc/resolv.conf").read_bytes() == settings
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_the_key_is_on_no_command_line(lab: Lab) -> None:
    assert "AWS_SECRET_ACCESS_KEY" not in " ".join(lab.operator_command("true"))


def test_the_command_runs_there_and_gives_its_status(lab: Lab) -> None:  # noqa: ARG001 - runs
    done = subprocess.run(
        [sys.executable, "-m", "ops", "lab", "operator", "--", "sh", "-c", "id -un; exit 3"],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, "root\n")
