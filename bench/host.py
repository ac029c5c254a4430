"""A mail host of the bench: a container in a zone of its own, with a queue volume and one MTA."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bench import cpu
from lab.container import Container
from lab.control import LabError
from lab.instance.volumes import Volumes, by_id_link
from lab.network import Network
from lab.network.network import HOST_INTERFACE, host_namespace
from lab.network.vpc_services import Interface

PROGRAMS = "/usr/local/lib/bench"
"""Where the application's program is on each host."""
_VOLUME_GIB = 4
_NETWORK = f"[Match]\nName={HOST_INTERFACE}\n\n[Network]\nDHCP=yes\nLinkLocalAddressing=no\n"

# What postern's queue-volume.service does: the same file system, made and mounted alike.
_MOUNT_QUEUE = """
mkfs.ext4 -q -L bench-queue -i 4096 -m 0 "$1"
mount "$1" /mnt
cp --archive "$2/." /mnt
chown --reference="$2" /mnt
chmod --reference="$2" /mnt
umount /mnt
mount -o noatime,errors=remount-ro "$1" "$2"
"""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who all contenders send as."""

    sending_domain: str
    selector: str
    private_key: str
    """PEM, PKCS#8."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One program to measure: what it is made of, and how it is asked."""

    name: str
    image: str
    """A name of `bench.images.IMAGES`."""
    title: str
    """For a reader: what runs there."""
    queue: str
    """Where the queue volume is mounted."""
    files: Callable[[Identity, str], Mapping[str, tuple[int, str]]]
    """What is written before the boot, given also the queue volume's id: path to mode and text."""
    set_up: str
    """The shell script that makes the mail server of the booted host."""
    mta_units: Sequence[str]
    signer_units: Sequence[str]
    """systemd units whose CPU time is the MTA's and the signer's; all else there is the rest."""
    queued: str
    """The shell command that prints how many messages are in the queues."""
    untried: str
    """The shell command that prints how many of them were never tried."""
    flush: str
    """The shell command that tries everything in the queue now, as an operator would."""
    clear: str
    """The shell script that removes everything from the queues."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    """Each setting that differs from the packages' own, and the reason, for the report."""
    mounts_itself: bool = False
    """Whether `set_up` mounts the queue volume."""
    patience: float = 120.0
    """For how many seconds its set-up may last."""


class MailHost:
    """A contender's host, while it runs."""

    def __init__(
        self,
        contender: Contender,
        *,
        number: int,
        identity: Identity,
        tree: Path,
        network: Network,
        state: Path,
    ) -> None:
        """`number` makes its addresses; `network` has its zone, called as the contender."""
        self.contender = contender
        self._identity = identity
        self._network = network
        self.zone = contender.name
        self.elastic_ip = IPv4Address("203.0.113.10") + number
        subnet = IPv4Network((IPv4Address("10.40.0.0") + 256 * number, 24))
        self._interface = Interface(
            vpc=subnet, subnet=subnet, address=subnet[20], mac=f"02:00:0a:28:{number:02x}:14"
        )
        self._network.snat(zone=self.zone, private=subnet, elastic_ip=self.elastic_ip)
        self._volumes = Volumes(state / "volumes")
        # Its own: what is left of an earlier volume of a name would be waited for.
        self._volume = f"vol-{uuid.uuid4().hex[:17]}"
        self.container = Container(
            name=f"bench-{contender.name}",
            root=tree,
            netns=host_namespace(self.zone),
            state=state / contender.name,
            prepare=self._prepare,
        )

    def start(self) -> None:
        """Boot, mount the queue volume, set the mail server up.

        Raises:
            LabError: the set-up failed; the text ends with its last lines.
        """
        self._network.connect_host(zone=self.zone, interface=self._interface)
        self.container.state.mkdir(parents=True, exist_ok=True)
        self.container.start()
        self._volumes.attach(
            volume=self._volume,
            size_gib=_VOLUME_GIB,
            instance=self.contender.name,
            container=self.container,
        )
        if not self.contender.mounts_itself:
            self.run(f"set -- {by_id_link(self._volume)} {self.contender.queue}\n{_MOUNT_QUEUE}")
        self.run(
            f"until ip -4 address show dev {HOST_INTERFACE} | grep -q inet; do sleep 0.1; done"
        )
        self.run(self.contender.set_up, timeout=self.contender.patience)

    def stop(self) -> None:
        """Pull the plug."""
        self.container.kill()
        for volume in dict(self._volumes.attached):
            self._volumes.detach(volume)

    def run(self, script: str, *, timeout: float = 120) -> str:
        """What a shell script prints on the host; raises LabError when it fails."""
        done = self.container.run(["bash", "-euo", "pipefail", "-c", script], timeout=timeout)
        if done.returncode:
            words = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise LabError(f"On {self.contender.name}, status {done.returncode}:\n{words}")
        return done.stdout.strip()

    def queued(self) -> int:
        """How many messages are in the queues."""
        return int(self.run(self.contender.queued) or 0)

    def untried(self) -> int:
        """How many messages in the queues were never tried."""
        return int(self.run(self.contender.untried) or 0)

    def wait_until_empty(self, *, seconds: float) -> bool:
        """Whether the queues were empty within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.queued():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def flush(self) -> None:
        """Try everything in the queue now, as an operator would."""
        self.run(self.contender.flush, timeout=600)

    def clear(self) -> None:
        """Remove everything from the queues."""
        self.run(self.contender.clear, timeout=600)

    @property
    def cgroup(self) -> Path:
        """The cgroup (v2) of everything on the host."""
        lines = Path(f"/proc/{self.container.leader_pid}/cgroup").read_text().splitlines()
        (path,) = (line[3:] for line in lines if line.startswith("0::"))
        cgroup = cpu.unified_hierarchy()
        for part in Path(path).parts[1:]:
            cgroup /= part
            if part.endswith(f".{self.container.name}"):
                break
        return cgroup

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds since the boot: of the MTA, the signer, and the rest of the host."""
        cgroup = self.cgroup
        mta = cpu.seconds_of_units(cgroup, self.contender.mta_units)
        signer = cpu.seconds_of_units(cgroup, self.contender.signer_units)
        return {"mta": mta, "signer": signer, "rest": cpu.seconds_of(cgroup) - mta - signer}

    def _prepare(self, root: Path) -> None:
        domain = self._identity.sending_domain
        files = {
            "/etc/hostname": (0o644, f"{domain}\n"),
            "/etc/hosts": (
                0o644,
                f"127.0.0.1 localhost\n127.0.1.1 {domain} {domain.partition('.')[0]}\n",
            ),
            "/etc/mailname": (0o644, f"{domain}\n"),
            "/etc/systemd/network/10-vpc.network": (0o644, _NETWORK),
            **self.contender.files(self._identity, self._volume),
        }
        # The application that sends runs here when it calls `sendmail`.
        for name in ("__init__.py", "names.py", "source.py"):
            program = (Path(__file__).parent / name).read_text("utf-8")
            files[f"{PROGRAMS}/bench/{name}"] = (0o644, program)
        for path, (mode, text) in files.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            file.write_text(text)
            file.chmod(mode)
