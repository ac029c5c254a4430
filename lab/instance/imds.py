"""The instance metadata service, version 2: no token, no answer.

Paths and formats are those of the EC2 user guide ("Instance metadata categories"), as far as
cloud-init, the AWS SDKs and AWS's agents read them. The hop limit is not imitated: nothing on the
instance forwards packets.
"""

from __future__ import annotations

import datetime
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, TypeAlias

Tree: TypeAlias = Mapping[str, "Tree | Leaf"]
Leaf: TypeAlias = str | bytes | Callable[[], str]
"""A value, or what makes it when it is asked for."""

Behaviour: TypeAlias = Literal["answers", "refuses", "hangs"]
"""Of the service: it answers, it refuses connections, or it takes them and never says a word."""

_TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - the header's name
_TTL_HEADER = f"{_TOKEN_HEADER}-ttl-seconds"
_LONGEST_TTL = 21600
# EC2 User Guide, "Retrieve security credentials": new ones are there at least so long before.
_CREDENTIALS_OVERLAP = datetime.timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class InstanceData:
    """What is known about one instance from outside."""

    instance_id: str
    image_id: str
    instance_type: str
    architecture: str
    account: str
    region: str
    zone: str
    vpc_id: str
    vpc_cidr: IPv4Network
    subnet_id: str
    subnet_cidr: IPv4Network
    address: IPv4Address
    mac: str
    host_name: str
    security_groups: tuple[str, ...]
    profile_arn: str | None
    role: str | None
    user_data: bytes


@dataclass(frozen=True, kw_only=True)
class RoleCredentials:
    """A session of the instance's role, as sts:AssumeRole gives it."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    issued: datetime.datetime
    expiration: datetime.datetime


AssumeRole: TypeAlias = Callable[[], RoleCredentials]


def metadata_tree(instance: InstanceData, now: datetime.datetime, credentials: AssumeRole) -> Tree:
    """What is below `/latest/` for `instance`; `credentials` is called when they are asked for."""
    interface = {
        "device-number": "0",
        "interface-id": f"eni-{instance.instance_id.removeprefix('i-')}",
        "local-hostname": instance.host_name,
        "local-ipv4s": str(instance.address),
        "mac": instance.mac,
        "owner-id": instance.account,
        "security-groups": "\n".join(instance.security_groups),
        "subnet-id": instance.subnet_id,
        "subnet-ipv4-cidr-block": str(instance.subnet_cidr),
        "vpc-id": instance.vpc_id,
        "vpc-ipv4-cidr-block": str(instance.vpc_cidr),
        "vpc-ipv4-cidr-blocks": str(instance.vpc_cidr),
    }
    metadata: dict[str, Tree | Leaf] = {
        "ami-id": instance.image_id,
        "ami-launch-index": "0",
        "hostname": instance.host_name,
        "instance-action": "none",
        "instance-id": instance.instance_id,
        "instance-life-cycle": "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": instance.host_name,
        "local-ipv4": str(instance.address),
        "mac": instance.mac,
        "network": {"interfaces": {"macs": {instance.mac: interface}}},
        "placement": {"availability-zone": instance.zone, "region": instance.region},
        "security-groups": "\n".join(instance.security_groups),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if instance.profile_arn and instance.role:
        metadata["iam"] = _iam(instance.profile_arn, instance.role, now, credentials)
    identity = {
        "accountId": instance.account,
        "architecture": instance.architecture,
        "availabilityZone": instance.zone,
        "imageId": instance.image_id,
        "instanceId": instance.instance_id,
        "instanceType": instance.instance_type,
        "pendingTime": _timestamp(now),
        "privateIp": str(instance.address),
        "region": instance.region,
        "version": "2017-09-30",
    }
    tree: dict[str, Tree | Leaf] = {
        "meta-data": metadata,
        "dynamic": {"instance-identity": {"document": json.dumps(identity, indent=2)}},
    }
    if instance.user_data:
        tree["user-data"] = instance.user_data
    return tree


def _iam(profile_arn: str, role: str, now: datetime.datetime, credentials: AssumeRole) -> Tree:
    def current() -> str:
        session = credentials()
        document = {
            "Code": "Success",
            "LastUpdated": _timestamp(session.issued),
            "Type": "AWS-HMAC",
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret_access_key,
            "Token": session.session_token,
            "Expiration": _timestamp(session.expiration),
        }
        return json.dumps(document, indent=2)

    info = {
        "Code": "Success",
        "LastUpdated": _timestamp(now),
        "InstanceProfileArn": profile_arn,
        "InstanceProfileId": "AIPALABINSTANCEPROFILE",
    }
    return {"info": json.dumps(info, indent=2), "security-credentials": {role: current}}


def _timestamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def look_up(tree: Tree, path: str) -> bytes | None:
    """The answer to `GET path`, such as `/latest/meta-data/`; None where there is nothing.

    The first part, a version of the interface, may be any. A directory answers with its names, one
    a line, those of directories with a slash.
    """
    node: Tree | Leaf = tree
    for part in [part for part in path.split("?")[0].split("/") if part][1:]:
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    if isinstance(node, Mapping):
        names = (f"{name}/" if isinstance(sub, Mapping) else name for name, sub in node.items())
        return "\n".join(names).encode()
    if callable(node):
        node = node()
    return node.encode() if isinstance(node, str) else node


class InstanceMetadata:
    """Serves one instance's metadata, when it is told to."""

    def __init__(
        self,
        *,
        instance: InstanceData,
        assume_role: AssumeRole,
        listen: Callable[[], socket.socket],
        log: Path,
    ) -> None:
        """`listen` makes the listening socket, again after a silence; `log` gets a line a request.

        `assume_role` is called for credentials when there are none, or none that last. Nothing
        listens yet.
        """
        self._instance = instance
        self._assume_role = assume_role
        self._listen = listen
        self._log = log
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer requests, on a thread of its own; after `stop` as well."""
        self.behave("answers")

    def stop(self) -> None:
        """Go silent, as when the service is unreachable: connections are refused from here on."""
        self.behave("refuses")

    def behave(self, how: Behaviour) -> None:
        """Change over to `how`; a token that was given out before a refusal is unknown after it."""
        if self._server is not None and self._thread is not None:
            self._server.silent = True
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        if how == "refuses":
            if self._server is not None:
                self._server.server_close()
                self._server = None
            return
        if self._server is None:
            self._server = _Server(self._listen(), self._instance, self._assume_role, self._log)
        if how == "answers":
            self._server.silent = False
            self._thread = threading.Thread(
                target=self._server.serve_forever,
                kwargs={"poll_interval": 0.1},
                name=f"imds-{self._instance.instance_id}",
                daemon=True,
            )
            self._thread.start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self,
        listener: socket.socket,
        instance: InstanceData,
        assume_role: AssumeRole,
        log: Path,
    ) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.instance = instance
        self.log = log
        self.silent = False
        self._expiry_of_tokens: dict[str, float] = {}
        self._assume_role = assume_role
        self._credentials: RoleCredentials | None = None
        self._credentials_lock = threading.Lock()

    def credentials(self) -> RoleCredentials:
        """The role's session of now, with at least five minutes left."""
        with self._credentials_lock:
            soon = datetime.datetime.now(datetime.UTC) + _CREDENTIALS_OVERLAP
            if self._credentials is None or self._credentials.expiration < soon:
                self._credentials = self._assume_role()
            return self._credentials

    def issue_token(self, ttl: int) -> str:
        token = secrets.token_urlsafe(40)
        self._expiry_of_tokens[token] = time.monotonic() + ttl
        return token

    def accepts(self, token: str | None) -> bool:
        return time.monotonic() < self._expiry_of_tokens.get(token or "", 0.0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Server

    def do_PUT(self) -> None:
        ttl = self.headers.get(_TTL_HEADER, "")
        if self.path != "/latest/api/token":
            self._reply(HTTPStatus.NOT_FOUND)
        elif "X-Forwarded-For" in self.headers:  # a proxy's request: not the instance's own
            self._reply(HTTPStatus.FORBIDDEN)
        elif not ttl.isdecimal() or not 1 <= int(ttl) <= _LONGEST_TTL:
            self._reply(HTTPStatus.BAD_REQUEST)
        else:
            token = self.server.issue_token(int(ttl))
            self._reply(HTTPStatus.OK, token.encode(), {_TTL_HEADER: ttl})

    def do_GET(self) -> None:
        if not self.server.accepts(self.headers.get(_TOKEN_HEADER)):
            self._reply(HTTPStatus.UNAUTHORIZED)
            return
        now = datetime.datetime.now(datetime.UTC)
        tree = metadata_tree(self.server.instance, now, self.server.credentials)
        body = look_up(tree, self.path)
        if body is None:
            self._reply(HTTPStatus.NOT_FOUND)
        else:
            self._reply(HTTPStatus.OK, body)

    def _reply(
        self, status: HTTPStatus, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        if self.server.silent:  # it came over a connection that was open before
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        now = _timestamp(datetime.datetime.now(datetime.UTC))
        with self.server.log.open("a") as log:
            log.write(f"{now} {self.client_address[0]} {format % args}\n")
