"""What one environment has no other may have; every fault of every file is told at once."""

from pathlib import Path

import pytest

from stacks.environment import InvalidEnvironment, load_all
from tests.environments.conftest import WriteEnvironment

ELASTIC_IP = """[elastic_ips.us-east-1a]
allocation_id = "eipalloc-0123456789abcdef0"
address = "203.0.113.10"
"""
QUEUE_VOLUME = """[queue_volumes.us-east-1a]
volume_id = "vol-0123456789abcdef0"
"""
OTHER_DOMAIN = ('sending_domain = "mail.example.com"', 'sending_domain = "post.example.com"')


def faults_of(folder: Path) -> list[str]:
    with pytest.raises(InvalidEnvironment) as raised:
        load_all(folder)
    return str(raised.value).splitlines()


def test_every_file_is_an_environment(write_environment: WriteEnvironment) -> None:
    folder = write_environment(name="prod.toml").parent
    write_environment(OTHER_DOMAIN, name="dev.toml")
    assert [environment.name for environment in load_all(folder)] == ["dev", "prod"]


def test_a_folder_without_an_environment_is_told(tmp_path: Path) -> None:
    assert faults_of(tmp_path) == [
        f"{tmp_path}: has no environment; copy example.toml of the repository to it and edit it"
    ]


def test_the_faults_of_all_files_are_told_at_once(write_environment: WriteEnvironment) -> None:
    write_environment(('"111122223333"', '"1"'), ('policy = "none"', 'policy = "block"'))
    write_environment(name="qa.toml")
    write_environment(name="same.toml")
    folder = write_environment(('region = "us-east-1"', "region ="), name="dev.toml").parent
    assert [line.split(": ")[:2] for line in faults_of(folder)] == [
        [f"{folder}/dev.toml", "not TOML"],
        [f"{folder}/prod.toml", "account"],
        [f"{folder}/prod.toml", "dmarc.policy"],
        [f"{folder}/same.toml", "sending_domain"],
    ]


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("[delivery]\norder = 1\n", "delivery.order", "1"),
        (
            ELASTIC_IP.replace("113.10", "113.11"),
            "elastic_ips.us-east-1a.allocation_id",
            '"eipalloc-0123456789abcdef0"',
        ),
        (
            ELASTIC_IP.replace("eipalloc-0", "eipalloc-1"),
            "elastic_ips.us-east-1a.address",
            '"203.0.113.10"',
        ),
        (QUEUE_VOLUME, "queue_volumes.us-east-1a.volume_id", '"vol-0123456789abcdef0"'),
    ],
    ids=["order", "allocation", "address", "queue volume"],
)
def test_no_two_environments_have_the_same(
    write_environment: WriteEnvironment, table: str, key: str, value: str
) -> None:
    theirs = "[delivery]\norder = 1\n" + ELASTIC_IP + QUEUE_VOLUME
    folder = write_environment(("[tags]", theirs + "[tags]"), name="dev.toml").parent
    prod = write_environment(OTHER_DOMAIN, ("[tags]", table + "[tags]"), name="prod.toml")
    (fault,) = faults_of(folder)
    assert fault.startswith(f"{prod}: {key}: {value} is in {folder}/dev.toml too; ")


def test_no_two_environments_have_the_same_sending_domain(
    write_environment: WriteEnvironment,
) -> None:
    folder = write_environment(name="dev.toml").parent
    prod = write_environment(name="prod.toml")
    (fault,) = faults_of(folder)
    assert fault == (
        f'{prod}: sending_domain: "mail.example.com (Z0123456789ABCDEFGHIJ)" is in '
        f"{folder}/dev.toml too; its records can be of one environment only: write another "
        "subdomain"
    )


def test_hosted_zones_of_the_same_name_are_different_places(
    write_environment: WriteEnvironment,
) -> None:
    """As of the lab and the real world."""
    folder = write_environment(name="dev.toml").parent
    write_environment(('"Z0123456789ABCDEFGHIJ"', '"Z0LABEXAMPLECOM"'), name="lab.toml")
    assert len(load_all(folder)) == 2
