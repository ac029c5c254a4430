"""A deployment is green only when the host that it brought says that it works."""

from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.conftest import NO_ANSWER, FirstDeployment, connect_to_a_receiver
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab


def test_a_key_that_dns_does_not_confirm_rolls_the_deployment_back_and_says_why(
    refusal: str,
) -> None:
    assert "Received FAILURE signal with UniqueId i-" in refusal
    assert "dkim-key-differs-from-dns" in refusal


def success(deployment: FirstDeployment) -> str:
    return f"Received SUCCESS signal with UniqueId {deployment.host}"


def test_the_deployment_turned_green_by_the_hosts_own_signal(
    first_deployment: FirstDeployment,
) -> None:
    assert first_deployment.signals == [success(first_deployment)]
    assert first_deployment.last_event == "CREATE_COMPLETE"


def test_a_blocked_port_25_does_not_fail_the_deployment(
    lab: Lab, first_deployment: FirstDeployment
) -> None:
    assert first_deployment.answer == NO_ANSWER
    eventually(lambda: connect_to_a_receiver(lab) == 0)  # as it would have been, unblocked
    assert first_deployment.signals == [success(first_deployment)]


def test_the_private_key_reaches_the_host_and_nothing_else(lab: Lab) -> None:
    secret = lab.cloud.client("secretsmanager").list_secrets()["SecretList"][0]
    value = lab.cloud.client("secretsmanager").get_secret_value(SecretId=secret["ARN"])
    a_line_of_the_key = value["SecretString"].split("\\n")[3]
    assert len(a_line_of_the_key) > 60

    outputs = lab.cloud.client("cloudformation").describe_stacks()["Stacks"]
    assert "ElasticIps" in str(outputs)
    assert a_line_of_the_key not in str(outputs)
    told = b"".join(
        path.read_bytes() for path in (lab.cloud.emulator_log, lab.cloud.cdk_log, lab.places.log)
    )
    assert a_line_of_the_key.encode() not in told
    on_disk = lab.run("grep", "-rlF", a_line_of_the_key, "/etc", "/var", "/root", "/home", "/usr")
    assert on_disk.stdout == ""
    # It is where OpenDKIM alone reads it, which shows that the search above can find it.
    in_memory = lab.run("grep", "-rlF", a_line_of_the_key, "/run")
    assert in_memory.stdout.strip() != ""
    file = in_memory.stdout.strip()
    owners = lab.run("stat", "--format=%U:%G %a", file, str(Path(file).parent))
    assert owners.stdout.splitlines() == ["opendkim:opendkim 600", "opendkim:opendkim 700"]
    kind = lab.run("stat", "--file-system", "--format=%T", file)
    assert kind.stdout.strip() == "tmpfs"
