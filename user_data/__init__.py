"""What runs on a mail host: real files, service by service.

Each folder holds one service's configuration, units and scripts; `_FILES` says where they go on
the host. They reach it in two ways, because EC2 takes 16 KiB of user data and no more:

- the user data itself (`render`) is a cloud-config of plain text, `cloud_config.yaml` and the few
  files that have to be there before Debian's packages are installed;
- all others are one tar archive (`archive`), which `setup/first-boot` fetches from S3 after that,
  compares with the SHA-256 in the user data, and unpacks.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import json
import tarfile
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

__all__ = ["CLIENT_PACKAGES", "PACKAGES", "ClientSettings", "HostSettings", "archive", "render"]

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

CLIENT_PACKAGES = ("libsasl2-modules", "sasl2-bin")
"""What is installed beside these where other hosts submit mail."""


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """What a host needs to know to take mail from other hosts.

    `networks` (CIDR notation) may submit, each address of them with so many `connections` at a
    time and `connections_per_minute`. `name` is the certificate's. The ARNs may be CloudFormation
    tokens: `certificate_arn` is ACM's, `secret_arns` are those of each client's name and password.
    """

    networks: tuple[str, ...]
    connections: int
    connections_per_minute: int
    name: str
    certificate_arn: str
    secret_arns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """What one host needs to know.

    `sending_domain`, `postmaster`, `dkim_selector`, `architecture` and `extra_user_data` are plain
    text; each other value may contain a CloudFormation token.

    No program of the host uses `queue_volume_gib`: with it a larger volume changes the user data,
    which replaces the host, and the successor makes the file system as large.

    `warm_up` is the plan as postern-pace reads it: the first day, and the messages of each day,
    "2026-12-01:200,300,450"; None is none.

    `suppression_days` is for how long a recipient that does not exist is not tried again; 0 is off.

    `signal_resource` is the logical id of the Auto Scaling group that waits for this host's signal,
    `architecture` Debian's word ("amd64" or "arm64"), `extra_user_data` an executable script (with
    its `#!` line) that runs as root after the mail server works and before the self-test.

    Without `clients` nobody but the host itself submits mail, and it gets nothing for others.
    """

    region: str
    sending_domain: str
    postmaster: str
    dkim_selector: str
    dkim_secret_arn: str
    queue_volume_id: str
    queue_volume_gib: int
    log_group_name: str
    stack_id: str
    signal_resource: str
    architecture: str
    suppression_days: int
    warm_up: str | None = None
    extra_user_data: str | None = None
    clients: ClientSettings | None = None

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

    `early` ones are part of the user data, there before packages are installed. The others come
    after that, so that dpkg finds nothing of ours when it sets up its own.
    """

    source: str
    path: str
    mode: str = "0644"
    early: bool = False


_PROGRAMS = "/usr/local/lib/postern"
_UNITS = "/etc/systemd/system"

_FILES = (
    _File("setup/policy-rc.d", "/usr/sbin/policy-rc.d", "0755", early=True),
    _File("setup/first-boot", f"{_PROGRAMS}/first-boot", "0755", early=True),
    _File("setup/postern-setup", "/usr/local/sbin/postern-setup", "0755"),
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
    _File("operations/postern-queue", "/usr/local/sbin/postern-queue", "0755"),
    _File("operations/postern-send-test", "/usr/local/sbin/postern-send-test", "0755"),
    _File("pace/postern-pace", f"{_PROGRAMS}/postern-pace", "0755"),
    _File("pace/postern-pace.service", f"{_UNITS}/postern-pace.service"),
    _File("pace/providers.toml", "/etc/postern/providers.toml"),
    _File("packet_filter/packet-filter.nft", "/etc/postern/packet-filter.nft"),
    _File(
        "packet_filter/systemd-networkd.conf",
        f"{_UNITS}/systemd-networkd.service.d/postern.conf",
    ),
    _File("queue_volume/attach-queue-volume", f"{_PROGRAMS}/attach-queue-volume", "0755"),
    _File("queue_volume/move-deferred", f"{_PROGRAMS}/move-deferred", "0755"),
    _File("queue_volume/move-deferred.service", f"{_UNITS}/move-deferred.service"),
    _File("queue_volume/move-deferred.timer", f"{_UNITS}/move-deferred.timer"),
    _File("queue_volume/prepare-queues", f"{_PROGRAMS}/prepare-queues", "0755"),
    _File("queue_volume/queue-volume.service", f"{_UNITS}/queue-volume.service"),
    _File("queue_volume/return-deferred.service", f"{_UNITS}/return-deferred.service"),
    _File("queue_volume/var-spool-queue.mount", f"{_UNITS}/var-spool-queue.mount"),
    _File("report/postern-report", "/usr/local/sbin/postern-report", "0755"),
    _File("report/postern-report.service", f"{_UNITS}/postern-report.service"),
    _File("report/postern-report.timer", f"{_UNITS}/postern-report.timer"),
    _File("resolver/resolved.conf", "/etc/systemd/resolved.conf.d/postern.conf"),
    _File("self_test/postern-self-test", "/usr/local/sbin/postern-self-test", "0755"),
    _File("sendmail/access", "/etc/mail/access"),
    _File("sendmail/aliases", "/etc/mail/aliases"),
    _File("sendmail/forward-to-postmaster", f"{_PROGRAMS}/forward-to-postmaster", "0755"),
    _File("sendmail/local-host-names", "/etc/mail/local-host-names"),
    _File("sendmail/sendmail", f"{_PROGRAMS}/sendmail", "0755"),
    _File("sendmail/sendmail-client.service", f"{_UNITS}/sendmail-client.service"),
    _File("sendmail/sendmail.conf", "/etc/mail/sendmail.conf"),
    _File("sendmail/sendmail.mc", "/etc/mail/sendmail.mc"),
    _File("sendmail/sendmail.service", f"{_UNITS}/sendmail.service"),
    _File("sendmail/submit.mc", "/etc/mail/submit.mc"),
    _File("submission/postern-submission", "/usr/local/sbin/postern-submission", "0755"),
    _File("submission/submission-closed.nft", "/etc/postern/submission-closed.nft"),
    _File("submission/submission-closed.service", f"{_UNITS}/submission-closed.service"),
    _File("suppressions/postern-suppressions", "/usr/local/sbin/postern-suppressions", "0755"),
    _File("suppressions/postern-suppressions.service", f"{_UNITS}/postern-suppressions.service"),
    _File("suppressions/postern-suppressions.timer", f"{_UNITS}/postern-suppressions.timer"),
    _File("upgrades/unattended-upgrades", "/etc/apt/apt.conf.d/52postern"),
)

# Where other hosts submit mail. The self-test is then two, and the program of its name calls both.
_CLIENT_FILES = (
    _File("clients/Sendmail.conf", "/etc/sasl2/Sendmail.conf"),
    _File("clients/clients.mc", "/etc/mail/clients.mc"),
    _File("clients/configure-clients", f"{_PROGRAMS}/configure-clients", "0755"),
    _File("clients/fetch-submission", f"{_PROGRAMS}/fetch-submission", "0755"),
    _File("clients/postern-self-test", "/usr/local/sbin/postern-self-test", "0755"),
    _File("self_test/postern-self-test", f"{_PROGRAMS}/self-test", "0755"),
    _File("clients/self-test-clients", f"{_PROGRAMS}/self-test-clients", "0755"),
    # Empty, which masks it: the package's own daemon, which nothing here asks.
    _File("clients/saslauthd.service", f"{_UNITS}/saslauthd.service"),
    _File("clients/sendmail-clients.service", f"{_UNITS}/sendmail-clients.service"),
    _File("clients/sendmail.conf", f"{_UNITS}/sendmail.service.d/clients.conf"),
    _File("clients/submission-certificate.timer", f"{_UNITS}/submission-certificate.timer"),
    _File("clients/submission-credentials.timer", f"{_UNITS}/submission-credentials.timer"),
    _File("clients/submission-health", f"{_PROGRAMS}/submission-health", "0755"),
    _File("clients/submission-health.socket", f"{_UNITS}/submission-health.socket"),
    _File("clients/submission-health@.service", f"{_UNITS}/submission-health@.service"),
    _File("clients/submission@.service", f"{_UNITS}/submission@.service"),
)

_FOLDER = Path(__file__).parent


def archive(settings: HostSettings) -> bytes:
    """The files that are not in the user data, as an uncompressed tar archive of paths below /.

    The same `sending_domain`, `dkim_selector`, `extra_user_data`, and networks and limits of
    `clients` give the same bytes on every machine; no other setting is in it, so all cells share
    one archive. It holds no directories: those that the host has keep their owner and mode.
    """
    files = {
        file.path: (file.mode, _content(file.source, settings))
        for file in (*_FILES, *(_CLIENT_FILES if settings.clients else ()))
        if not file.early
    }
    if settings.clients:
        mode, access = files["/etc/mail/access"]
        files["/etc/mail/access"] = (mode, access + _client_access(settings.clients))
    packages = "".join(f"{package}\n" for package in _packages(settings))
    files[f"{_PROGRAMS}/packages"] = ("0644", packages)
    if settings.extra_user_data is not None:
        files[f"{_PROGRAMS}/extra-user-data"] = ("0700", settings.extra_user_data)

    packed = io.BytesIO()
    # POSIX's own format, and no compression: zlib's output differs between its builds.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (mode, text) in sorted(files.items()):
            content = text.encode()
            # Its owner is root (0) and its time 1970 unless told otherwise.
            member = tarfile.TarInfo(path.removeprefix("/"))
            member.uname = member.gname = "root"
            member.mode = int(mode, base=8)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def render(settings: HostSettings, *, bucket: str, key: str) -> str:
    """The user data of a mail host: a cloud-config of ASCII text.

    `bucket` and `key` say where in S3 the host finds what `archive` returns for these settings;
    they may contain CloudFormation tokens. The archive's SHA-256 is in the text, so a changed file
    changes the user data, and with it replaces the host.
    """
    values = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in ("clients", "extra_user_data")
        and getattr(settings, field.name) is not None
    }
    if settings.clients:
        values["submission_name"] = settings.clients.name
        values["submission_certificate_arn"] = settings.clients.certificate_arn
        values["submission_secret_arns"] = ",".join(settings.clients.secret_arns)
    values["host_files_bucket"] = bucket
    values["host_files_key"] = key
    values["host_files_sha256"] = hashlib.sha256(archive(settings)).hexdigest()
    # KEY=value, for shell, systemd and Python alike.
    settings_file = "".join(f"{name.upper()}={value}\n" for name, value in values.items())
    return "\n".join(
        [
            _content("cloud_config.yaml", settings),
            "write_files:",
            _written("/etc/postern/settings", "0644", settings_file),
            *(
                _written(file.path, file.mode, _content(file.source, settings))
                for file in _FILES
                if file.early
            ),
        ]
    )


def _packages(settings: HostSettings) -> list[str]:
    return sorted({*PACKAGES, *(CLIENT_PACKAGES if settings.clients else ())})


def _client_access(clients: ClientSettings) -> str:
    """Lines of sendmail's access map: the clients' networks, and the limits of each address."""
    relays = "".join(f"Connect:{prefix}\tRELAY\n" for prefix in _prefixes(clients.networks))
    return (
        "# Who else may: the clients that the environment names, after a password (clients.mc).\n"
        f"{relays}"
        "# For each of their addresses: new connections in a minute, and connections at a time.\n"
        f"ClientRate:\t{clients.connections_per_minute}\n"
        f"ClientConn:\t{clients.connections}\n"
    )


def _prefixes(networks: Iterable[str]) -> Iterator[str]:
    """Networks as sendmail's access map knows them: the leading one to four bytes of an address."""
    for network in map(ipaddress.IPv4Network, networks):
        whole_bytes = max(1, -(-network.prefixlen // 8))
        for part in network.subnets(new_prefix=8 * whole_bytes):
            yield ".".join(str(part.network_address).split(".")[:whole_bytes])


def _written(path: str, mode: str, content: str) -> str:
    """An item of cloud-config's `write_files`; `content` begins without a space and ends a line."""
    return (
        f"  - path: {path}\n"
        f"    permissions: '{mode}'\n"
        f"    content: |\n{textwrap.indent(content, '      ')}"
    )


def _content(source: str, settings: HostSettings) -> str:
    """A file of this folder as the host gets it, with `@NAME@` filled in."""
    values = {
        "SENDING_DOMAIN": settings.sending_domain,
        "DKIM_SELECTOR": settings.dkim_selector,
        "PACKAGES": json.dumps(_packages(settings)),
    }
    text = (_FOLDER / source).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
