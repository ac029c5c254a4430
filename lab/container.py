"""A Debian container with its own systemd, booted by systemd-nspawn from a read-only tree.

Made for the lab's supervisor: mounts happen in the caller's mount namespace and processes are its
descendants, so both end with it, however it ends. Only a cgroup directory can outlive it
(`sweep_cgroups`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.images import mount_writable
from lab.places import lab_name

_START_TIMEOUT = 30.0
_EXIT_TIMEOUT = 10.0

# systemd's own word for "power off" to a PID 1 (systemd(1), SIGRTMIN+4).
_POWER_OFF = signal.SIGRTMIN + 4

# Runs a command as the child of a shell, which waits for nothing but its child's end. nsenter's own
# way (--fork) is to stop when it sees its child stopped, as systemd does to all when it shuts down.
# It would stay stopped, and with it all that waits for the end of the container: its dead child is
# not reaped, and the file systems that it is in are not let go of. env: the shell is outside of the
# container's PID namespace, so nothing may be built into it.
_RUN_AS_CHILD = 'env "$@"; exit $?'

# What nspawn ends with under --keep-unit when its container asks for a reboot (systemd's
# EXIT_FORCE_RESTART): whoever keeps the unit is to start it again.
_REBOOT = 133

# Join each cgroup named before `--`, then become the command named after it.
_JOIN_CGROUPS = """
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done
shift
exec "$@"
"""


class ContainerError(Exception):
    """A container did not start, or is not running when it has to be."""


class Container:
    """One bootable container.

    Its files: `state/console.log` (what PID 1 and the services print), `state/root` (its root
    directory, mounted while it exists), `state/upper` (what it changed, such as its logs; it stays
    for a look afterwards).
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        netns: str,
        state: Path,
        prepare: Callable[[Path], None] | None = None,
    ) -> None:
        """Describe a container; nothing runs yet.

        `root` is the read-only tree (see `lab.images.root_filesystem`), `netns` the name of the
        network namespace to live in, `state` this container's own directory. `prepare` is called
        with the mounted root directory before the boot, to change what it likes.
        """
        self.name = name
        self.state = state
        self.root = state / "root"
        self.changes = state / "upper"
        self.console_log = state / "console.log"
        self._lower = root
        self._netns = Path("/run/netns") / netns
        self._prepare = prepare
        self._cgroups = [own / f"{lab_name()}.{name}" for own in _own_cgroups() if own.is_dir()]
        self._nspawn: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Mount, prepare and boot; return when its systemd takes requests.

        Raises:
            ContainerError: it ended or kept silent; the text ends with the console's last lines.
        """
        mount_writable(self._lower, self.state)
        try:
            if self._prepare is not None:
                self._prepare(self.root)
            self._boot()
        except BaseException:  # Ctrl-C too: no half-booted container stays behind
            self.kill()
            raise

    @property
    def asks_for_reboot(self) -> bool:
        """Whether it shut itself down in order to boot again; nothing of it runs until `reboot`."""
        return self._nspawn is not None and self._nspawn.poll() == _REBOOT

    def reboot(self) -> None:
        """Boot again from the same disk, with a new /dev and /run; raises as `start` does."""
        try:
            self._boot()
        except BaseException:
            self.kill()
            raise

    @property
    def running(self) -> bool:
        """Whether the container's PID 1, or systemd-nspawn on its behalf, is still there."""
        return self._nspawn is not None and self._nspawn.poll() is None

    @property
    def leader_pid(self) -> int:
        """The container's PID 1 as seen from here; another one after a reboot inside.

        Raises:
            ContainerError: there is none.
        """
        if self._nspawn is not None:
            nspawn = self._nspawn.pid
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text()
                for child in map(int, children.split()):
                    if _is_namespace_leader(child):
                        return child
        raise ContainerError(f"container {self.name} is not running; see {self.console_log}")

    def enter_command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside, for a caller with pipes or a terminal of its own."""
        return [
            *("nsenter", "--no-fork", f"--target={self.leader_pid}"),
            *("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"),
            *("env", "--ignore-environment"),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
            f"TERM={os.environ.get('TERM', 'dumb')}",
            *("sh", "-c", _RUN_AS_CHILD, "sh"),
            *argv,
        ]

    def run(
        self,
        argv: Sequence[str],
        input: str | None = None,  # noqa: A002 - the name subprocess.run gives it
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` inside as root and wait; its status is the caller's to judge.

        Raises:
            ContainerError: the container is not running.
            subprocess.TimeoutExpired: not done within `timeout` seconds; it was killed.
        """
        return subprocess.run(
            self.enter_command(argv),
            check=False,
            capture_output=True,
            text=True,
            input="" if input is None else input,
            timeout=timeout,
        )

    def power_off(self, timeout: float = 20.0) -> None:
        """Shut down in order, as EC2 does on termination; pull the plug after `timeout` seconds."""
        if self._nspawn is not None:
            with contextlib.suppress(ContainerError, ProcessLookupError):
                os.kill(self.leader_pid, _POWER_OFF)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End every process at once, as a failing machine does, and give up mount and cgroup."""
        if self._nspawn is not None:
            with contextlib.suppress(ContainerError, ProcessLookupError):
                os.kill(self.leader_pid, signal.SIGKILL)  # the kernel ends its whole PID namespace
            try:
                self._nspawn.wait(_EXIT_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait(_EXIT_TIMEOUT)
        if self.root.is_mount():
            subprocess.run(["umount", "--lazy", str(self.root)], check=True)
        for cgroup in self._cgroups:
            _remove_cgroup(cgroup)

    def _boot(self) -> None:
        for cgroup in self._cgroups:
            cgroup.mkdir(exist_ok=True)
        with self.console_log.open("ab") as console:
            self._nspawn = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self._wait_for_systemd()

    def _command(self) -> list[str]:
        return [
            *("sh", "-ec", _JOIN_CGROUPS, "join-cgroups", *map(str, self._cgroups), "--"),
            # nspawn makes the container's /sys from the namespace it is started in, and cloud-init
            # looks for network cards there: without this it finds this machine's own.
            *("nsenter", f"--net={self._netns}", "env"),
            "TERM=dumb",  # the console is a log: no colours
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",  # Debian 13's systemd knows no other
            # Without this the container's udev and networkd wait 27 s for a /sys they can write.
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
            *("systemd-nspawn", "--quiet", "--boot", "--console=read-only"),
            *("--register=no", "--keep-unit"),  # no machined here, and our cgroup instead of its
            f"--machine={self.name}",
            f"--directory={self.root}",
            f"--network-namespace-path={self._netns}",
            "--capability=CAP_NET_ADMIN",
            *("--resolv-conf=off", "--timezone=off"),  # the image's own, as on a machine
        ]

    def _wait_for_systemd(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline and self.running:
            with contextlib.suppress(ContainerError):
                if Path(f"/proc/{self.leader_pid}/root/run/systemd/private").exists():
                    return
            time.sleep(0.05)
        console = self.console_log.read_text(errors="replace").splitlines()[-15:]
        what = "did not boot" if self.running else "ended while it booted"
        raise ContainerError(f"container {self.name} {what}. Its console:\n" + "\n".join(console))


def sweep_cgroups() -> None:
    """Remove the cgroups of containers whose supervisor died.

    Call it before the first container starts. Another lab's have another name.
    """
    for hierarchy in _hierarchies().values():
        for cgroup in hierarchy.glob(f"**/{lab_name()}.*"):
            with contextlib.suppress(OSError):
                _remove_cgroup(cgroup)


def _own_cgroups() -> list[Path]:
    """This process's cgroup directories in the hierarchies that systemd uses.

    Containers get children of these, one each: nspawn splits the cgroup it is started in, and two
    containers must not share the halves. On a cgroup v2 machine there is one such directory; on a
    hybrid one there are two, in the `name=systemd` hierarchy of v1 and in the unified one.
    """
    hierarchies = _hierarchies()
    directories = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in hierarchies:
            directories.append(hierarchies[controllers] / path.lstrip("/"))
    return directories


def _hierarchies() -> dict[str, Path]:
    """Where systemd's cgroup hierarchies are mounted, by their name in /proc/self/cgroup."""
    hierarchies: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, *_, super_options = filesystem.split(" ")
        if kind == "cgroup2":
            hierarchies.setdefault("", Path(mount.split()[4]))
        elif kind == "cgroup" and "name=systemd" in super_options.split(","):
            hierarchies.setdefault("name=systemd", Path(mount.split()[4]))
    return hierarchies


def _remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup and those below it; the container's systemd made many."""
    if cgroup.is_dir():
        for directory, _, _ in os.walk(cgroup, topdown=False):
            Path(directory).rmdir()


def _is_namespace_leader(pid: int) -> bool:
    """Whether `pid` is PID 1 of a PID namespace of its own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1] == "1" and len(line.split()) > 2
    return False
