"""Stand-ins for the two agents that a host installs from AWS's own buckets.

The real packages are not redistributable with the lab and would reach for services that it does not
have. The stand-ins are real Debian packages with the same names, under the same object keys, that
install units of the same names; the units do nothing. What the SSM agent does for Run Command, the
lab does itself as long as the unit is active: see `lab.instance.ssm_agent`.
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = ("amd64", "arm64")
VERSION = "0.0.1"

_UNIT = """\
[Unit]
Description=Stand-in for {package}

[Service]
ExecStart=/bin/sleep infinity

[Install]
WantedBy=multi-user.target
"""

_CONTROL = """\
Package: {package}
Version: {version}
Architecture: {architecture}
Maintainer: Postern's lab <postmaster@example.com>
Description: stand-in
 Takes the place of AWS's package in the lab and does nothing.
"""


@dataclass(frozen=True, kw_only=True)
class Agent:
    package: str
    bucket: str
    """With ``{region}`` in place of the Region."""
    key: str
    """The object key, with ``{architecture}``."""
    directory: str
    """The agent's own directory, where a host finds or puts its configuration."""
    starts_on_installation: bool


AGENTS = (
    Agent(
        package="amazon-ssm-agent",
        bucket="amazon-ssm-{region}",
        key="latest/debian_{architecture}/amazon-ssm-agent.deb",
        directory="etc/amazon/ssm",
        starts_on_installation=True,
    ),
    Agent(
        package="amazon-cloudwatch-agent",
        bucket="amazoncloudwatch-agent-{region}",
        key="debian/{architecture}/latest/amazon-cloudwatch-agent.deb",
        directory="opt/aws/amazon-cloudwatch-agent/etc",
        starts_on_installation=False,
    ),
)


def publish(*, s3: Any, region: str) -> None:
    """Build the packages with dpkg-deb and put them into the Region's buckets."""
    for agent in AGENTS:
        bucket = agent.bucket.format(region=region)
        if region == "us-east-1":  # the one Region that must not be named, says the API
            s3.create_bucket(Bucket=bucket)
        else:
            s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region}
            )
        _let_everybody_read(s3, bucket)
        for architecture in ARCHITECTURES:
            s3.put_object(
                Bucket=bucket,
                Key=agent.key.format(architecture=architecture),
                Body=build(agent, architecture),
            )


def _let_everybody_read(s3: Any, bucket: str) -> None:
    s3.delete_public_access_block(Bucket=bucket)
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def build(agent: Agent, architecture: str) -> bytes:
    """The agent's stand-in as the bytes of a .deb file."""
    unit = f"{agent.package}.service"
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        _write(
            tree / "DEBIAN" / "control",
            _CONTROL.format(package=agent.package, version=VERSION, architecture=architecture),
        )
        _write(tree / "usr/lib/systemd/system" / unit, _UNIT.format(package=agent.package))
        (tree / agent.directory).mkdir(parents=True)
        if agent.starts_on_installation:
            script = f"#!/bin/sh\nset -e\nsystemctl enable --now {unit}\n"
            _write(tree / "DEBIAN" / "postinst", script, mode=0o755)
        package = Path(directory) / "agent.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, package],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return package.read_bytes()


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
