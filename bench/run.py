"""The bench itself, in namespaces of its own in which `bench.__main__` starts it.

The kernel ends every process, mount and namespace of a bench with this process, however it ends.
It ends when standard input does, so as not to outlive whoever started it.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import contenders, dns
from bench.bounds import measure as measure_bounds
from bench.host import Identity, MailHost
from bench.images import image
from bench.measure import Sample, stream
from bench.names import zone_files
from bench.options import Options
from bench.queues import QueueSample, queue
from bench.receiver import Receiver
from bench.results import Results
from bench.signatures import new_identity
from lab.container import ContainerError, sweep_cgroups
from lab.control import LabError
from lab.images import ImageError, mount_writable
from lab.instance.volumes import VolumeError
from lab.internet.image import internet_image
from lab.internet.service import InternetError
from lab.network import Network, NetworkError
from lab.network.namespace import DIRECTORY as NETWORK_NAMESPACES
from lab.places import PROJECT, Places
from lab.steps import Steps
from stacks.environment import load

_TOLD = (ContainerError, ImageError, InternetError, LabError, NetworkError, VolumeError)


def main() -> None:
    options = Options.from_json(sys.argv[1])
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    console = Console()
    try:
        with ExitStack() as stack:
            Bench(options, steps=Steps(console), stack=stack).run()
    except _TOLD as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        sys.exit(130)


class Bench:
    """Everything that runs, and what it found."""

    def __init__(self, options: Options, *, steps: Steps, stack: ExitStack) -> None:
        self._options = options
        self._steps = steps
        self._stack = stack
        self._places = Places()
        self._hosts: list[MailHost] = []
        environment = load(PROJECT / "environments" / "lab.toml")
        self._region = environment.region
        self._identity: Identity = new_identity(
            sending_domain=environment.sending_domain, selector=environment.dkim.signing
        )

    def run(self) -> None:
        """Start it all, measure, and write what was found after each workload."""
        results = self._results_so_far()
        self._stack.enter_context(only_bench(self._places))
        self._start()
        results.contenders |= self._described()
        if self._options.bounds:
            with self._steps.step("Bounds: signatures, fsync"):
                results.bounds = measure_bounds(self._hosts[0])
        for workload in self._options.workloads:
            for number, host in self._turns(self._options.runs):
                title = f"{workload.title}: {host.contender.name}, run {number}"
                with self._steps.step(title):
                    sample = stream(host, self._receiver, workload, self._identity)
                self._tell(sample)
                results.add(workload, sample)
            results.write(self._options.json)
        for messages in self._options.queues:
            for number, host in self._turns(self._options.queue_runs):
                title = f"{messages:,} deferred: {host.contender.name}, run {number}"
                with self._steps.step(title):
                    found = queue(host, self._receiver, self._identity, messages=messages)
                self._tell_queue(found)
                results.add_queue(found)
            results.write(self._options.json)

    def _results_so_far(self) -> Results:
        """What this bench adds to.

        Raises:
            LabError: that is of another machine.
        """
        options = self._options
        results = Results(about=_about())
        if options.add and options.json.exists():
            try:
                results.keep(
                    Results.read(options.json),
                    but_workloads=options.workload_names,
                    but_queues=options.queues,
                )
            except ValueError as error:
                raise LabError(f"--add: the figures of {options.json} are {error}.") from error
        return results

    def _turns(self, runs: int) -> Iterator[tuple[int, MailHost]]:
        """Number of the run, from 1, and whose turn it is.

        Each run begins with another, so that none always has the same neighbour.
        """
        for number in range(runs):
            first = number % len(self._hosts)
            for host in self._hosts[first:] + self._hosts[:first]:
                yield number + 1, host

    def _described(self) -> dict[str, dict[str, Any]]:
        def filled_in(setting: str) -> str:
            return setting.replace("@DOMAIN@", self._identity.sending_domain).replace(
                "@SELECTOR@", self._identity.selector
            )

        return {
            host.contender.name: {
                "title": host.contender.title,
                "configuration": {
                    filled_in(setting): why for setting, why in host.contender.configuration.items()
                },
            }
            for host in self._hosts
        }

    def _tell_queue(self, sample: QueueSample) -> None:
        idle = ", ".join(f"{who} {seconds:.2f}" for who, seconds in sample.idle_cpu.items())
        self._steps.console.print(
            f"  idle CPU s in 30 s: {idle}; {sample.delivered} of {sample.messages} in "
            f"{sample.drain_seconds:.1f} s, doubled {sample.doubled}",
            highlight=False,
        )

    def _tell(self, sample: Sample) -> None:
        wrong = (
            ""
            if sample.exact
            else f" NOT EXACT: delivered {sample.delivered} of {sample.messages}, "
            f"doubled {sample.doubled}, strangers {sample.strangers}, unverified "
            f"{sample.unverified}, refusals {sample.refusals}"
        )
        shares = ", ".join(
            f"{who} {sample.cpu_per_message(who):.1f}"
            for who in ("mta", "signer", "rest", "source", "sink", "machine")
        )
        self._steps.console.print(
            f"  {sample.per_second:.0f}/s; CPU ms a message: {shares}{wrong}", highlight=False
        )

    def _start(self) -> None:
        places, detail = self._places, self._steps.detail
        made = [contenders.make(name) for name in self._options.contenders]
        with self._steps.step("Debian images"):
            trees = {c.image: image(c.image, cache=places.cache, progress=detail) for c in made}
            internet = internet_image(cache=places.cache, progress=detail)
        with self._steps.step("Network, DNS, sink"):
            network = Network(state=places.state / "network", region=self._region)
            network.up([contender.name for contender in made])
            self._hosts = [
                MailHost(
                    contender,
                    number=number,
                    identity=self._identity,
                    tree=trees[contender.image],
                    network=network,
                    state=places.state,
                )
                for number, contender in enumerate(made)
            ]
            mount_writable(internet, places.state / "internet")
            dns.start(
                root=places.state / "internet" / "root",
                zones=zone_files(
                    sending_domain=self._identity.sending_domain,
                    sender=self._hosts[0].elastic_ip,
                ),
                log=places.state / "nsd.log",
            )
            self._receiver = Receiver()
        for host in self._hosts:
            with self._steps.step(f"{host.contender.name} boots"):
                self._stack.callback(host.stop)
                host.start()


@contextmanager
def only_bench(places: Places) -> Iterator[None]:
    """Hold this machine's lab lock, with the remains of an earlier lab or bench swept away.

    Both would disturb each other's figures, and use the same places.

    Raises:
        LabError: a lab or a bench is running.
    """
    places.lock.parent.mkdir(parents=True, exist_ok=True)
    with places.lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("A lab or a bench is running on this machine: end it first.") from None
        sweep_cgroups()
        shutil.rmtree(places.state, ignore_errors=True)
        places.state.mkdir(parents=True)
        NETWORK_NAMESPACES.mkdir(exist_ok=True)
        # Ours alone, in this process's own mount namespace: the machine sees no name of them.
        subprocess.run(["mount", "-t", "tmpfs", "netns", str(NETWORK_NAMESPACES)], check=True)
        yield


def _about() -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "processor": _processor(),
    }


def _processor() -> str:
    """What the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)  # and the kernel ends everything else


if __name__ == "__main__":
    main()
