"""The lab's one process: everything else in the lab descends from it.

It runs in process-id and mount namespaces of its own (see `lab.lab`), so that the kernel ends every
process, every mount and every named network namespace with it, however it ends. What the kernel
does not clean (cgroup directories, files) is swept when the next lab starts.

Until the lab is ready, standard output carries one JSON object a line: ``{"begin": step}``,
``{"detail": text}``, ``{"end": step}``, and last ``{"ready": true}`` or ``{"failed": text}``.
Afterwards `lab.control` is the way in.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.cloud.cloud import Cloud
from lab.container import ContainerError, sweep_cgroups
from lab.control import ControlServer, Handler, LabError
from lab.images import ImageError
from lab.instance import ssm_agent
from lab.instance.hypervisor import Hypervisor
from lab.instance.image import instance_image, mirror_hosts
from lab.instance.mirror import MirrorError, debian_mirror
from lab.internet.internet import Internet
from lab.internet.receivers.sinkhole import Behaviour, Orders
from lab.internet.service import InternetError
from lab.laptop import write_laptop
from lab.network import Network, NetworkError
from lab.network.namespace import DIRECTORY as NETWORK_NAMESPACES
from lab.places import Places
from stacks.environment import Environment, load
from user_data import CLIENT_PACKAGES, PACKAGES

# Each of these carries a whole sentence for a person.
_TOLD = (ContainerError, ImageError, InternetError, LabError, MirrorError, NetworkError)


def main() -> None:
    parser = argparse.ArgumentParser(prog="lab.supervisor")
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument(
        "--end-with-stdin",
        action="store_true",
        help="end when standard input closes, so as not to outlive whoever started the lab",
    )
    arguments = parser.parse_args()
    starter = _Starter()
    try:
        _supervise(arguments.environment, starter, end_with_stdin=arguments.end_with_stdin)
    except Exception as error:  # the starter shows it, and the log has the trace
        traceback.print_exc()
        told = str(error) if isinstance(error, _TOLD) else f"{type(error).__name__}: {error}"
        starter.say(failed=told)
        sys.exit(1)


def _supervise(environment: Path, starter: "_Starter", *, end_with_stdin: bool) -> None:
    places = Places()
    with _only_lab(places):
        services = Services(places=places, environment=load(environment), starter=starter)
        services.start()
        server = ControlServer(path=places.control_socket, operations=services.operations())
        for ending_signal in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending_signal, lambda *_: services.stop_asked.set())
        if end_with_stdin:
            threading.Thread(
                target=_wait_for_end_of_stdin, args=[services.stop_asked], daemon=True
            ).start()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        starter.say(ready=True)
        starter.let_go()
        services.stop_asked.wait()
        services.stop()


class Services:
    """Everything that runs in the lab, in the order in which it starts."""

    def __init__(self, *, places: Places, environment: Environment, starter: "_Starter") -> None:
        self.stop_asked = threading.Event()
        self._places = places
        self._environment = environment
        self._starter = starter

    def start(self) -> None:
        """Start everything but the instances, which follow when they are deployed."""
        places, environment, detail = self._places, self._environment, self._starter.detail
        step = self._starter.step
        with step("Debian image of the instance"):
            image = instance_image(cache=places.cache, progress=detail)
        with step("Debian mirror for the instance"):
            mirror = debian_mirror(
                cache=places.cache,
                image=image,
                packages=(*PACKAGES, *CLIENT_PACKAGES),
                progress=detail,
            )
        with step("Emulated AWS"):
            self._cloud = Cloud(
                python=places.emulator_python,
                state=places.state,
                cdk=places.cdk,
                progress=detail,
                region=environment.region,
            )
            endpoint = self._cloud.start()
            self._cloud.create_hosted_zone(
                hosted_zone_id=environment.hosted_zone.id, name=environment.hosted_zone.name
            )
        with step("Network: Internet, NAT gateway, private subnet"):
            self._network = Network(state=places.state / "network", region=environment.region)
            self._network.up(environment.availability_zones)
        with step("Internet: DNS, three receivers, AWS's TLS end, Debian mirror"):
            self._internet = Internet(
                endpoint=endpoint,
                client=self._cloud.client,
                region=environment.region,
                hosted_zone_id=environment.hosted_zone.id,
                hosted_zone_name=environment.hosted_zone.name,
                state=places.state / "internet",
                cache=places.cache,
                received=places.received,
                mirror=mirror,
                mirror_hosts=mirror_hosts(image),
                progress=detail,
            )
            self._internet.start()
            write_laptop(
                places.laptop,
                region=environment.region,
                ca_certificate=self._internet.ca_certificate,
            )
        self._hypervisor = Hypervisor(
            client=self._cloud.client,
            region=environment.region,
            image=image,
            network=self._network,
            state=places.state / "instances",
            ca_certificate=self._internet.ca_certificate,
            report=_log,
        )
        self._hypervisor.start()

    def stop(self) -> None:
        """Give up the instances and their cgroups; the kernel ends the rest with this process."""
        self._hypervisor.stop()

    def operations(self) -> Mapping[str, Handler]:
        """What `lab.control` callers may ask for, by name."""
        return {
            "stop": self.stop_asked.set,
            "hosts": self._hosts,
            "problems": lambda: self._hypervisor.problems,
            "publish": self._publish,
            "block_smtp": self._block_smtp,
            "sinkhole": self._sinkhole,
            "verdicts": lambda: [v.to_json() for v in self._internet.verdicts()],
            "wait_for": self._wait_for,
            "crash": lambda instance_id: self._hypervisor.crash(instance_id),
            "hold_launches": lambda held: self._hypervisor.hold_launches(held=held),
            "lose_zone": self._lose_zone,
            "volume_image": lambda volume: str(self._hypervisor.volume_image(volume)),
            "aws_apis": lambda faults: self._internet.aws_apis(faults),
            "metadata": lambda behaviour: self._hypervisor.metadata(behaviour),
            "answering_agents": self._answering_agents,
            "run_script": self._run_script,
            "issue_certificate": lambda name: self._internet.issue_certificate(name),
        }

    def _hosts(self) -> list[dict[str, Any]]:
        """Each instance that runs, with the command that enters it from inside the lab."""
        hosts = []
        for host in self._hypervisor.hosts.values():
            with contextlib.suppress(ContainerError):  # it is just going down, or rebooting
                hosts.append(
                    {
                        "instance_id": host.instance_id,
                        "zone": host.zone,
                        "enter": host.container.enter_command([]),
                        "console_log": str(host.console_log),
                        "user_data_log": str(host.user_data_log),
                    }
                )
        return hosts

    def _answering_agents(self) -> list[str]:
        """The instances that Systems Manager reaches."""
        hosts = self._hypervisor.hosts.items()
        return [instance_id for instance_id, host in hosts if ssm_agent.answers(host.container)]

    def _run_script(self, instance_id: str, **arguments: Any) -> dict[str, Any]:
        container = self._hypervisor.hosts[instance_id].container
        result = ssm_agent.run_script(container, region=self._environment.region, **arguments)
        return dataclasses.asdict(result)

    def _publish(self, faults: Sequence[str]) -> None:
        self._internet.publish(frozenset(faults))

    def _block_smtp(self, blocked: bool) -> None:
        self._network.block_smtp(blocked=blocked)

    def _lose_zone(self, zone: str, lost: bool) -> None:
        self._hypervisor.lose_zone(zone, lost=lost)
        self._network.cut(zone=zone, off=lost)

    def _sinkhole(self, behaviour: str, **settings: Any) -> None:
        self._internet.sinkhole.obey(Orders(behaviour=Behaviour(behaviour), **settings))

    def _wait_for(self, **arguments: Any) -> list[str]:
        return [verdict.to_json() for verdict in self._internet.wait_for(**arguments)]


class _Starter:
    """Whoever started the lab and waits at the other end of standard output."""

    def say(self, **message: Any) -> None:
        print(json.dumps(message), flush=True)

    def detail(self, text: str) -> None:
        self.say(detail=text)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.say(begin=title)
        yield
        self.say(end=title)

    def let_go(self) -> None:
        """From now on standard output is the log too, so that the starter may go."""
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


@contextmanager
def _only_lab(places: Places) -> Iterator[None]:
    """Hold this machine's lab lock, with the remains of an earlier lab swept away.

    The kernel lets go of the lock when this process ends.
    """
    places.lock.parent.mkdir(parents=True, exist_ok=True)
    with places.lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                "Another lab is running on this machine: use it, or end it with `postern lab down`."
            ) from None
        os.ftruncate(sys.stderr.fileno(), 0)  # the log, until here an earlier lab's
        sweep_cgroups()
        for remains in (places.state, places.received):
            shutil.rmtree(remains, ignore_errors=True)
            remains.mkdir(parents=True)
        NETWORK_NAMESPACES.mkdir(exist_ok=True)
        # Ours alone, in this process's own mount namespace: the machine sees no name of them.
        subprocess.run(["mount", "-t", "tmpfs", "netns", str(NETWORK_NAMESPACES)], check=True)
        yield


def _wait_for_end_of_stdin(ended: threading.Event) -> None:
    while os.read(0, 4096):  # unbuffered: a buffer's lock would not be free when Python ends
        pass
    ended.set()


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
