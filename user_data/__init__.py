"""What runs on a mail host: real files, service by service, assembled into one cloud-init document.

Each folder holds one service's configuration, units and scripts; `_FILES` says where they go on
the host. `cloud_config.yaml` is what cloud-init itself is asked to do.

The document is MIME multipart (https://docs.cloud-init.io/en/latest/explanation/format.html).
Its first part is plain and holds everything that CloudFormation fills in at deploy time; the
second is gzip-compressed and holds the rest. Comments stay in this folder: EC2 takes 16 KiB.
"""

from __future__ import annotations

import base64
import email
import gzip
import json
import re
import textwrap
from dataclasses import dataclass, fields
from operator import itemgetter
from pathlib import Path

import zopfli.gzip

__all__ = ["MAX_BYTES", "PACKAGES", "HostSettings", "decode", "render"]

MAX_BYTES = 16384
"""EC2's limit for user data, before its own base64 encoding."""

# CloudFormation tokens are shorter than what takes their place, for an ARN by 100 characters.
_RESERVED_FOR_TOKENS = 256

PACKAGES = (
    "awscli",
    "ca-certificates",
    "curl",
    "logrotate",
    "m4",
    "nftables",
    "opendkim",
    "opendkim-tools",
    "python3-dkim",
    "rsyslog",
    "sendmail-bin",
    "unattended-upgrades",
)
"""Debian packages a mail host has installed by cloud-init, without their Recommends."""


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """What one host needs to know.

    `sending_domain`, `postmaster`, `dkim_selector`, `architecture` and `extra_user_data` are plain
    text; each other value may contain a CloudFormation token.

    `signal_resource` is the logical id of the Auto Scaling group that waits for this host's signal,
    `architecture` Debian's word ("amd64" or "arm64"), `extra_user_data` an executable script (with
    its `#!` line) that runs as root after the mail server works and before the self-test.
    """

    region: str
    sending_domain: str
    postmaster: str
    dkim_selector: str
    dkim_secret_arn: str
    queue_volume_id: str
    log_group_name: str
    stack_name: str
    signal_resource: str
    architecture: str
    extra_user_data: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would make a host that cannot work.

        Raises:
            ValueError: says which value and what it has to be.
        """
        if self.architecture not in ("amd64", "arm64"):
            raise ValueError(f"architecture {self.architecture!r}: must be 'amd64' or 'arm64'")
        if self.postmaster.rpartition("@")[2].lower() == self.sending_domain.lower():
            raise ValueError(
                f"postmaster {self.postmaster!r} is in the sending domain, which has no mailboxes: "
                "name an address in another domain"
            )
        if self.extra_user_data is not None and not self.extra_user_data.startswith("#!"):
            raise ValueError("extra_user_data must begin with a line such as '#!/bin/bash'")


@dataclass(frozen=True)
class _File:
    """Where a file of this folder goes on the host.

    `early` ones are there before packages are installed; the others come after, so that dpkg finds
    nothing of ours when it sets up its own.
    """

    source: str
    path: str
    mode: str = "0644"
    early: bool = False


_DEFAULT_MODE = "0644"  # of cloud-init's write_files
_PROGRAMS = "/usr/local/lib/postern"
_UNITS = "/etc/systemd/system"

_FILES = (
    _File("setup/policy-rc.d", "/usr/sbin/policy-rc.d", "0755", early=True),
    _File("setup/first-boot", f"{_PROGRAMS}/first-boot", "0755", early=True),
    _File("setup/postern-setup", "/usr/local/sbin/postern-setup", "0755", early=True),
    _File("agents/install-agents", f"{_PROGRAMS}/install-agents", "0755"),
    _File("agents/amazon-cloudwatch-agent.json", f"{_PROGRAMS}/amazon-cloudwatch-agent.json"),
    _File("logs/journald.conf", "/etc/systemd/journald.conf.d/postern.conf"),
    _File("logs/logrotate", "/etc/logrotate.d/rsyslog"),
    _File("logs/rsyslog.conf", "/etc/rsyslog.conf"),
    _File("opendkim/anticipate_sendmail.lua", "/etc/opendkim/anticipate_sendmail.lua"),
    _File("opendkim/dkim-key.service", f"{_UNITS}/dkim-key.service"),
    _File("opendkim/fetch-dkim-key", f"{_PROGRAMS}/fetch-dkim-key", "0755"),
    _File("opendkim/opendkim.conf", "/etc/opendkim.conf"),
    _File("opendkim/opendkim.service", f"{_UNITS}/opendkim.service"),
    _File("packet_filter/metadata.nft", "/etc/postern/metadata.nft"),
    _File(
        "packet_filter/systemd-networkd.conf",
        f"{_UNITS}/systemd-networkd.service.d/postern.conf",
    ),
    _File("queue_volume/attach-queue-volume", f"{_PROGRAMS}/attach-queue-volume", "0755"),
    _File("queue_volume/prepare-queues", f"{_PROGRAMS}/prepare-queues", "0755"),
    _File("queue_volume/queue-volume.service", f"{_UNITS}/queue-volume.service"),
    _File("queue_volume/var-spool-queue.mount", f"{_UNITS}/var-spool-queue.mount"),
    _File("resolver/resolved.conf", "/etc/systemd/resolved.conf.d/postern.conf"),
    _File("self_test/postern-self-test", "/usr/local/sbin/postern-self-test", "0755"),
    _File("sendmail/access", "/etc/mail/access"),
    _File("sendmail/aliases", "/etc/mail/aliases"),
    _File("sendmail/forward-to-postmaster", f"{_PROGRAMS}/forward-to-postmaster", "0755"),
    _File("sendmail/local-host-names", "/etc/mail/local-host-names"),
    _File("sendmail/sendmail-client.service", f"{_UNITS}/sendmail-client.service"),
    _File("sendmail/sendmail.conf", "/etc/mail/sendmail.conf"),
    _File("sendmail/sendmail.mc", "/etc/mail/sendmail.mc"),
    _File("sendmail/sendmail.service", f"{_UNITS}/sendmail.service"),
    _File("sendmail/submit.mc", "/etc/mail/submit.mc"),
    _File("upgrades/unattended-upgrades", "/etc/apt/apt.conf.d/52postern"),
)

_FOLDER = Path(__file__).parent
_BOUNDARY = "=====postern====="
_COMMENT = {"mc": "dnl ", "lua": "--", "unattended-upgrades": "//"}


def render(settings: HostSettings) -> str:
    """The user data of a mail host: a MIME document of ASCII text.

    The same settings give the same bytes on every machine: zopfli's output depends on its pinned
    version only, and a changed byte would replace every host.

    Raises:
        ValueError: it is larger than EC2 takes.
    """
    document = "\n".join(
        [
            f'Content-Type: multipart/mixed; boundary="{_BOUNDARY}"',
            "MIME-Version: 1.0",
            "",
            f"--{_BOUNDARY}",
            "Content-Type: text/cloud-config",
            'Content-Disposition: attachment; filename="settings"',
            "",
            _settings_part(settings),
            f"--{_BOUNDARY}",
            "Content-Type: application/gzip",
            "Content-Transfer-Encoding: base64",
            'Content-Disposition: attachment; filename="host"',
            "",
            base64.b64encode(_compress(_host_part(settings))).decode("ascii"),
            f"--{_BOUNDARY}--",
            "",
        ]
    )
    size = len(document.encode()) + _RESERVED_FOR_TOKENS
    if size > MAX_BYTES:
        extra = len((settings.extra_user_data or "").encode())
        raise ValueError(
            f"the user data would have {size} bytes, and EC2 takes {MAX_BYTES}; extra_user_data "
            f"has {extra} before compression. Let that script fetch what it needs instead."
        )
    return document


def decode(document: str) -> str:
    """What `render` made, for people: every part and every file in it as plain text.

    Raises:
        ValueError: `document` is not the result of `render`.
    """
    message = email.message_from_string(document)
    if not message.is_multipart():
        raise ValueError("not a MIME multipart document made by render()")
    shown = []
    for part in message.walk():
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        if part.get_content_type() == "application/gzip":
            payload = gzip.decompress(payload)
        text, marker, files = payload.decode().partition(_WRITE_FILES_JSON)
        shown.append(f"==== part {part.get_filename()} ====\n{text.rstrip()}\n")
        if marker:
            for file in json.loads(files):
                mode = file.get("permissions", _DEFAULT_MODE)
                deferred = ", after the packages" if file.get("defer") else ""
                shown.append(f"---- {file['path']} ({mode}{deferred}) ----")
                shown.append(file["content"])
    return "\n".join(shown)


# What follows these words in a part is JSON, which is YAML too.
_WRITE_FILES_JSON = "\nwrite_files: "


def _settings_part(settings: HostSettings) -> str:
    """The one file with deploy-time values: KEY=value, for shell, systemd and Python alike."""
    lines = [
        f"{field.name.upper()}={getattr(settings, field.name)}"
        for field in fields(settings)
        if field.name != "extra_user_data"
    ]
    return (
        "#cloud-config\n"
        "write_files:\n"
        "  - path: /etc/postern/settings\n"
        "    permissions: '0644'\n"
        "    content: |\n" + textwrap.indent("\n".join(lines), "      ") + "\n"
    )


def _host_part(settings: HostSettings) -> str:
    contents = [
        {
            "path": file.path,
            "content": _content(file.source, settings),
            **({} if file.mode == _DEFAULT_MODE else {"permissions": file.mode}),
            **({} if file.early else {"defer": True}),
        }
        for file in _FILES
    ]
    contents.append(
        {
            "path": f"{_PROGRAMS}/packages",
            "content": "".join(f"{package}\n" for package in PACKAGES),
        }
    )
    if settings.extra_user_data is not None:
        contents.append(
            {
                "path": f"{_PROGRAMS}/extra-user-data",
                "permissions": "0700",
                "content": settings.extra_user_data,
            }
        )
    # Alike files beside one another: what compresses them looks back 32 KiB and no further.
    contents.sort(key=itemgetter("path"))
    config = _content("cloud_config.yaml", settings)
    return config + _WRITE_FILES_JSON + json.dumps(contents, separators=(",", ":"))


def _content(source: str, settings: HostSettings) -> str:
    """A file as the host gets it: `@NAME@` filled in, without comments, docstrings, blank lines."""
    values = {
        "SENDING_DOMAIN": settings.sending_domain,
        "DKIM_SELECTOR": settings.dkim_selector,
        "PACKAGES": json.dumps(PACKAGES),
    }
    text = (_FOLDER / source).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    kind = re.split(r"[./]", source)[-1]
    comment = re.escape(_COMMENT.get(kind, "#"))
    text = re.sub(rf"^[ \t]*{comment}(?!!|cloud-config).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r'^[ \t]*""".*?"""\n', "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^[ \t]*\n", "", text, flags=re.MULTILINE)


def _compress(text: str) -> bytes:
    compressed: bytes = zopfli.gzip.compress(text.encode(), numiterations=30)
    return compressed
