"""Postern as it is deployed: what synthesis gives environments/lab.toml, set up by its own setup.

`app.py` synthesises the environment as for a deployment. The user data's files and the archive
beside the template are unpacked on Debian with the packages that cloud-init would install, and
`postern-setup`, as the first boot runs it, starts the units. Stand-ins answer for AWS: an `aws`
that gives the DKIM secret, and empty packages of the two agents' names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.host import Contender, Identity
from lab.control import LabError
from lab.places import PROJECT
from review.host_files import File, unpacked, written
from review.snapshots import archive_of, templates_of, user_data_of

_ENVIRONMENT = "lab"
_STAND_IN = """\
Package: {name}
Status: install ok installed
Maintainer: bench
Architecture: all
Version: 0
Description: stand-in

"""
_UNIT = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""
_SETTINGS = "/etc/postern/settings"
_AGENTS = ("amazon-ssm-agent", "amazon-cloudwatch-agent")
_AWS = """\
#!/bin/sh
case "$*" in
*get-secret-value*) exec cat /etc/bench/secret ;;
esac
exit 1
"""
_QUEUES = "/var/spool/queue/mqueue*"


# What the first boot does once the archive is unpacked; the volume's device is there already.
_SET_UP = f"""
for name in {" ".join(_AGENTS)}; do
    sed "s/@/$name/" /etc/bench/stand-in >> /var/lib/dpkg/status
    printf '{_UNIT}' > /etc/systemd/system/$name.service
done
/usr/local/sbin/postern-setup >/var/log/postern-setup.log 2>&1 || {{
    cat /var/log/postern-setup.log /run/postern/failure >&2; exit 1; }}
for attempt in $(seq 100); do
    if (exec 3<>/dev/tcp/127.0.0.1/25) 2>/dev/null && [ -S /run/opendkim/socket ]; then exit 0; fi
    sleep 0.2
done
echo "nobody listens on port 25" >&2
exit 1
"""


def contender() -> Contender:
    """Postern of this working copy, synthesised now.

    Raises:
        LabError: it could not be synthesised; the text has the app's words.
    """
    host_files = deployed_files()
    return Contender(
        name="postern",
        image="postern",
        title="Postern: environments/lab.toml as synthesised and set up by its own postern-setup",
        queue="/var/spool/queue",
        files=lambda identity, volume: _files(host_files, identity, volume),
        set_up=_SET_UP,
        mta_units=("sendmail.service", "sendmail-client.service", "postern-pace.service"),
        signer_units=("opendkim.service",),
        queued=f"find {_QUEUES} -name 'qf*' | wc --lines",
        untried=f"grep --recursive --files-with-matches --include='qf*' ^N0 {_QUEUES} | wc --lines"
        " || true",
        flush="sendmail -qR@",
        clear=f"""
            systemctl stop sendmail sendmail-client
            find {_QUEUES} -type f -delete
            systemctl start sendmail sendmail-client
        """,
        mounts_itself=True,
        patience=300,
    )


def deployed_files() -> Mapping[str, File]:
    """Every file that a deployment of the lab's environment puts on its host, by path.

    Values that only a deployment has, such as the volume's id, stand there as <what they are>.

    Raises:
        LabError: the app made no templates.
    """
    with tempfile.TemporaryDirectory() as folder:
        assembly = Path(folder)
        context = json.loads((PROJECT / "cdk.json").read_text("utf-8"))["context"]
        app = subprocess.run(
            [sys.executable, "app.py"],
            cwd=PROJECT,
            env={
                **{name: text for name, text in os.environ.items() if name != "POSTERN_SUFFIX"},
                "CDK_OUTDIR": folder,
                "CDK_CONTEXT_JSON": json.dumps({**context, "environment": _ENVIRONMENT}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if app.returncode:
            raise LabError(f"app.py made no templates:\n{app.stdout}{app.stderr}".rstrip())
        (document,) = {
            user_data_of(resource)
            for stack, template in templates_of(assembly / f"assembly-{_ENVIRONMENT}")
            for resource in template.get("Resources", {}).values()
            if resource["Type"] == "AWS::EC2::LaunchTemplate"
        }
        return {**written(document), **unpacked(archive_of(document, assembly))}


def of_a_deployment(settings: str, volume: str) -> str:
    """The host's settings with this volume's id and, for what else a deployment gives, a word."""
    settings = re.sub(r"(?m)^QUEUE_VOLUME_ID=.*$", f"QUEUE_VOLUME_ID={volume}", settings)
    return re.sub(r"<[^>\n]*>", "bench", settings)


def _files(
    deployed: Mapping[str, File], identity: Identity, volume: str
) -> Mapping[str, tuple[int, str]]:
    secret = {
        "domain": identity.sending_domain,
        "selector": identity.selector,
        "private_key": identity.private_key,
    }
    return {
        **{path: (int(file.mode, 8), file.content) for path, file in deployed.items()},
        _SETTINGS: (0o644, of_a_deployment(deployed[_SETTINGS].content, volume)),
        "/usr/local/bin/aws": (0o755, _AWS),
        "/etc/bench/secret": (0o600, json.dumps([json.dumps(secret), "2026-01-01T00:00:00Z"])),
        "/etc/bench/stand-in": (0o644, _STAND_IN.format(name="@")),
        # Where cloud-init keeps it.
        "/var/lib/cloud/data/instance-id": (0o644, "i-bench\n"),
    }
