"""The instance metadata service, as cloud-init and the AWS SDKs meet it."""

import datetime
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab.instance.imds import (
    InstanceData,
    InstanceMetadata,
    RoleCredentials,
    look_up,
    metadata_tree,
)
from tests.lab.waiting import PATIENCE_SECONDS

NOW = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)
INSTANCE = InstanceData(
    instance_id="i-0123456789abcdef0",
    image_id="ami-0123456789abcdef0",
    instance_type="t3.small",
    architecture="x86_64",
    account="000000000000",
    region="us-east-1",
    zone="us-east-1a",
    vpc_id="vpc-1",
    vpc_cidr=IPv4Network("10.40.0.0/24"),
    subnet_id="subnet-1",
    subnet_cidr=IPv4Network("10.40.0.64/26"),
    address=IPv4Address("10.40.0.70"),
    mac="02:00:0a:28:00:46",
    host_name="ip-10-40-0-70.ec2.internal",
    security_groups=("mail",),
    profile_arn="arn:aws:iam::000000000000:instance-profile/mail",
    role="mail-role",
    user_data=b"\x1f\x8b not text",
)
CREDENTIALS = RoleCredentials(
    access_key_id="ASIAEXAMPLE",
    secret_access_key="secret",  # noqa: S106
    session_token="token",  # noqa: S106
    issued=NOW,
    expiration=NOW + datetime.timedelta(hours=1),
)
TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
TTL = "X-aws-ec2-metadata-token-ttl-seconds"


def answer(path: str, instance: InstanceData = INSTANCE) -> bytes | None:
    return look_up(metadata_tree(instance, NOW, lambda: CREDENTIALS), path)


def test_a_directory_lists_its_names_with_a_slash_after_directories() -> None:
    assert answer("/latest/meta-data/placement/") == b"availability-zone\nregion"
    names = (answer("/2021-03-23/meta-data/") or b"").splitlines()
    assert b"placement/" in names
    assert b"instance-id" in names


def test_user_data_arrives_byte_for_byte() -> None:
    assert answer("/latest/user-data") == INSTANCE.user_data


def test_an_instance_without_user_data_or_role_has_no_such_paths() -> None:
    bare = replace(INSTANCE, user_data=b"", profile_arn=None, role=None)
    assert answer("/latest/user-data", bare) is None
    assert answer("/latest/meta-data/iam/security-credentials/", bare) is None


def test_the_roles_credentials_are_found_by_way_of_its_name() -> None:
    role = (answer("/latest/meta-data/iam/security-credentials/") or b"").decode()
    credentials = json.loads(answer(f"/latest/meta-data/iam/security-credentials/{role}") or b"")
    assert role == "mail-role"
    assert credentials["AccessKeyId"] == "ASIAEXAMPLE"
    assert credentials["SecretAccessKey"] == "secret"
    assert credentials["Token"] == "token"  # noqa: S105
    assert credentials["LastUpdated"] == "2026-11-24T12:00:00Z"
    assert credentials["Expiration"] == "2026-11-24T13:00:00Z"


def test_the_identity_document_says_where_the_instance_is() -> None:
    identity = json.loads(answer("/latest/dynamic/instance-identity/document") or b"")
    assert identity["region"] == "us-east-1"
    assert identity["instanceId"] == INSTANCE.instance_id
    assert identity["privateIp"] == "10.40.0.70"


def test_a_path_below_a_value_is_not_found() -> None:
    assert answer("/latest/meta-data/instance-id/more") is None


class Client:
    def __init__(self, port: int, log: Path) -> None:
        self._port = port
        self.log = log

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        timeout: float = PATIENCE_SECONDS,
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


@pytest.fixture
def lifetimes() -> list[datetime.timedelta]:
    """How long each session of the role lasts that is still to be given out."""
    return [datetime.timedelta(hours=1)]


@pytest.fixture
def service(
    port: int, tmp_path: Path, lifetimes: list[datetime.timedelta]
) -> Iterator[InstanceMetadata]:
    def assume_role() -> RoleCredentials:
        expiration = datetime.datetime.now(datetime.UTC) + lifetimes.pop(0)
        return replace(CREDENTIALS, access_key_id=f"ASIA{len(lifetimes)}", expiration=expiration)

    service = InstanceMetadata(
        instance=INSTANCE,
        assume_role=assume_role,
        listen=lambda: socket.create_server(("127.0.0.1", port)),
        log=tmp_path / "imds.log",
    )
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(service: InstanceMetadata, port: int, tmp_path: Path) -> Client:  # noqa: ARG001 - runs
    return Client(port, tmp_path / "imds.log")


def test_without_a_token_nothing_is_told(client: Client) -> None:
    path = "/latest/meta-data/instance-id"
    assert client.request("GET", path) == (401, "")
    assert client.request("GET", path, {"X-aws-ec2-metadata-token": "guessed"}) == (401, "")


def test_with_a_token_the_instance_is_told_who_it_is(client: Client) -> None:
    status, token = client.request("PUT", TOKEN_PATH, {TTL: "60"})
    assert status == 200
    headers = {"X-aws-ec2-metadata-token": token}
    assert client.request("GET", "/latest/meta-data/instance-id", headers) == (
        200,
        INSTANCE.instance_id,
    )
    assert client.request("GET", "/latest/meta-data/no-such", headers)[0] == 404


def test_credentials_are_kept_until_five_minutes_before_they_expire(
    client: Client, lifetimes: list[datetime.timedelta]
) -> None:
    lifetimes[:] = [datetime.timedelta(minutes=4), datetime.timedelta(minutes=6)]
    _, token = client.request("PUT", TOKEN_PATH, {TTL: "60"})
    path = "/latest/meta-data/iam/security-credentials/mail-role"

    def access_key() -> str:
        _, body = client.request("GET", path, {"X-aws-ec2-metadata-token": token})
        return str(json.loads(body)["AccessKeyId"])

    assert [access_key(), access_key(), access_key()] == ["ASIA1", "ASIA0", "ASIA0"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({TTL: "0"}, 400),
        ({TTL: "21601"}, 400),
        ({TTL: "60", "X-Forwarded-For": "192.0.2.1"}, 403),
    ],
)
def test_a_token_is_refused_to_the_careless_and_to_proxies(
    client: Client, headers: dict[str, str], status: int
) -> None:
    assert client.request("PUT", TOKEN_PATH, headers)[0] == status


def test_every_request_is_in_the_log(client: Client) -> None:
    client.request("GET", "/latest/meta-data/")
    assert '"GET /latest/meta-data/ HTTP/1.1" 401' in client.log.read_text()


def test_a_stopped_service_refuses_connections_and_can_be_started_again(
    client: Client, service: InstanceMetadata
) -> None:
    service.stop()
    with pytest.raises(ConnectionRefusedError):
        client.request("GET", "/latest/meta-data/")

    service.start()
    assert client.request("PUT", TOKEN_PATH, {TTL: "60"})[0] == 200


def test_a_hanging_service_takes_connections_and_says_nothing(
    client: Client, service: InstanceMetadata
) -> None:
    service.behave("hangs")
    with pytest.raises(TimeoutError):
        client.request("GET", "/latest/meta-data/", timeout=0.3)

    service.start()
    assert client.request("PUT", TOKEN_PATH, {TTL: "60"})[0] == 200


def test_an_open_connection_is_no_way_around_the_silence(
    service: InstanceMetadata, port: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("PUT", TOKEN_PATH, headers={TTL: "60"})
    assert connection.getresponse().read()

    service.behave("hangs")
    connection.request("PUT", TOKEN_PATH, headers={TTL: "60"})
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
