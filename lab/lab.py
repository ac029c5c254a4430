"""The lab as a command or a test sees it: start it or find it, deploy, send, ask, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import IO, Any, Self

from lab.cloud.cloud import Cloud
from lab.control import LabError, NotRunning, ask, supervisor_pid
from lab.instance.clock import LIBRARY, clock_script
from lab.instance.hypervisor import NO_MACHINE_TAG
from lab.internet.internet import DELIVERY_SECONDS
from lab.internet.receivers.sinkhole import Behaviour
from lab.internet.verdict import Verdict
from lab.laptop import operator_command
from lab.network.namespace import DIRECTORY as NAMESPACES
from lab.network.namespace import entered
from lab.places import PROJECT, Places
from lab.preflight import require_a_fit_machine
from lab.steps import Steps
from stacks.environment import load

ENVIRONMENT = PROJECT / "environments" / "lab.toml"

_END_SECONDS = 60

# With process-id and mount namespaces of its own: the kernel ends all in them with the supervisor.
_SUPERVISOR = (
    *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"),
    *(sys.executable, "-m", "lab.supervisor", f"--environment={ENVIRONMENT}"),
)


def _untold(_event: str) -> None:
    """Progress that nobody asked to see."""


@dataclass(frozen=True, kw_only=True)
class QueueVolume:
    """The volume that outlives its hosts; ``image`` is the file with its contents."""

    volume_id: str
    image: Path


class Lab:
    """A running lab: `Lab.start` makes one, `Lab.find` finds the one that `postern lab up` left."""

    def __init__(
        self, *, places: Places, supervisor: int, progress: Callable[[str], None] = _untold
    ) -> None:
        """`supervisor` is its process id; `progress` gets a line for each event of a deployment."""
        self.places = places
        self.environment = load(ENVIRONMENT)
        self.cloud = Cloud(
            python=places.emulator_python,
            state=places.state,
            cdk=places.cdk,
            progress=progress,
            region=self.environment.region,
        )
        self.supervisor = supervisor
        self._supervisor_handle = os.pidfd_open(supervisor)  # a process id may be given again
        self._progress = progress
        self._assembly = PROJECT

    @classmethod
    def start(cls, *, steps: Steps, keep: bool) -> Self:
        """Start everything but the instances, which `deploy` brings.

        Unless it is to be kept, the lab ends with this process, however this process ends.

        Raises:
            CannotRunHere: this machine is not fit for it.
            LabError: a part did not start, or a lab is already running.
        """
        places = Places()
        require_a_fit_machine(places)
        with places.log.open("ab") as log:  # the supervisor empties it, once it is the only one
            process = subprocess.Popen(
                [*_SUPERVISOR, *([] if keep else ["--end-with-stdin"])],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL if keep else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the command, which ends the lab in order
            )
        try:
            assert process.stdout is not None
            _follow_the_start(process.stdout, steps, places)
            return cls(
                places=places,
                supervisor=supervisor_pid(places.control_socket),
                progress=steps.detail,
            )
        except BaseException:  # Ctrl-C too
            process.kill()
            process.wait()
            raise

    @classmethod
    def find(cls, *, progress: Callable[[str], None] = _untold) -> Self:
        """The lab that runs on this machine; raises NotRunning."""
        places = Places()
        return cls(
            places=places, supervisor=supervisor_pid(places.control_socket), progress=progress
        )

    def end(self) -> None:
        """Power off the instances and end every process of the lab."""
        with suppress(NotRunning):
            ask(self.places.control_socket, "stop")
        if not select.select([self._supervisor_handle], [], [], _END_SECONDS)[0]:
            self.kill()

    def kill(self) -> None:
        """End every process of the lab at once, as when its supervisor dies."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._supervisor_handle, signal.SIGKILL)

    def bootstrap(self, *, zones: int = 1) -> None:
        """Bootstrap the account, and synthesise meanwhile what `deploy` will deploy.

        With several ``zones`` it is the lab's environment with as many availability zones.
        """
        app = PROJECT if zones == 1 else self.variant(zones=zones)
        with ThreadPoolExecutor() as executor:
            synthesis = executor.submit(self.cloud.synthesize, self.environment.name, app=app)
            self.cloud.bootstrap(account=self.environment.account)
            self._assembly = synthesis.result()

    def deploy(
        self, *, app: Path | None = None, stacks: str = "*", options: Sequence[str] = ()
    ) -> None:
        """Deploy the lab's environment with the CDK command line; raises CloudError.

        ``app`` is another app, or another assembly, than the one that `bootstrap` synthesised.
        """
        told = len(self._ask("problems"))
        deployed = threading.Event()

        def tell_problems() -> None:
            nonlocal told
            while not deployed.wait(1):
                problems = self._ask("problems")
                for problem in problems[told:]:
                    self._progress(f"The lab has a problem: {problem} (see {self.places.log})")
                told = len(problems)

        teller = threading.Thread(target=tell_problems)
        teller.start()
        try:
            self.cloud.deploy(
                self.environment.name, app=app or self._assembly, stacks=stacks, options=options
            )
        finally:
            deployed.set()
            teller.join()

    def deploy_variant(self, *, extra_user_data: str) -> None:
        """Deploy the lab's environment with this script as its extra user data.

        That changes the hosts' user data, so each host is replaced; `deploy` goes back to the
        environment as its file has it. A script that ends with another status than 0 fails the
        deployment.

        Raises:
            CloudError: the deployment failed and was rolled back; the text has AWS's reasons.
        """
        app = self.variant()
        file = app / "environments" / ENVIRONMENT.name
        file.with_name("extra-user-data").write_text(extra_user_data)
        before, heading, after = file.read_text().partition("\n[host]\n")
        if not heading or "extra_user_data" in after:
            raise LabError(f"{ENVIRONMENT} must have a section [host] without extra_user_data.")
        file.write_text(f'{before}{heading}extra_user_data = "extra-user-data"\n{after}')
        self.deploy(app=app)

    def variant(self, *, zones: int = 1) -> Path:
        """A folder to deploy from, with `deploy(app=...)`: its environment's file is for editing.

        It begins as a copy of the lab's, environments/lab.toml, anew with each call, with as many
        availability zones as are asked for; the code is this project's. The operator's commands
        work in it as in the project's own folder.
        """
        app = self.places.state / "variant"
        environments = app / "environments"
        environments.mkdir(parents=True, exist_ok=True)
        for name in ("app.py", "cdk.json"):
            (app / name).unlink(missing_ok=True)
            (app / name).symlink_to(PROJECT / name)
        own = f"availability_zones = {json.dumps(list(self.environment.availability_zones))}\n"
        asked = f"availability_zones = {json.dumps(self.zones(zones))}\n"
        text = ENVIRONMENT.read_text()
        if own not in text:
            raise LabError(f"{ENVIRONMENT} must have the line: {own}")
        (environments / ENVIRONMENT.name).write_text(text.replace(own, asked))
        return app

    def zones(self, count: int) -> list[str]:
        """The first availability zones of the lab's Region, the environment's own first."""
        (own,) = self.environment.availability_zones
        region = self.environment.region
        return [own, *(f"{region}{letter}" for letter in "bcdef")][:count]

    def signals(self) -> list[str]:
        """What CloudFormation heard from instances, in the words of its events, oldest first."""
        events = self.cloud.stack_events(f"postern-{self.environment.name}-MailHosts")
        return [event.reason for event in events if "signal with UniqueId" in event.reason]

    @property
    def instance_ids(self) -> list[str]:
        """The instances that run now."""
        return list(self.hosts)

    @property
    def hosts(self) -> dict[str, str]:
        """The availability zone of each instance that runs now, by its id, in the zones' order."""
        zones = {host["instance_id"]: host["zone"] for host in self._ask("hosts")}
        return dict(sorted(zones.items(), key=lambda item: item[1]))

    def host_command(self, *argv: str, host: str = "") -> list[str]:
        """The command line that runs ``argv`` as root on a host.

        Here and below a ``host`` is named by its instance id or its availability zone, and may be
        left out while only one runs.
        """
        return [
            *("nsenter", f"--target={self.supervisor}", "--mount", "--pid", "--wdns=/"),
            *self._host(host)["enter"],
            *argv,
        ]

    def run(
        self,
        *argv: str,
        input: bytes = b"",  # noqa: A002 - the name subprocess.run gives it
        timeout: float = 60,
        host: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root on a host; its exit status is the caller's to judge."""
        finished = subprocess.run(
            self.host_command(*argv, host=host),
            check=False,
            input=input,
            capture_output=True,
            timeout=timeout,
        )
        return subprocess.CompletedProcess(
            argv,
            finished.returncode,
            finished.stdout.decode(errors="replace"),
            finished.stderr.decode(errors="replace"),
        )

    def operator_command(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` as on an operator's laptop on the lab's Internet.

        It has this machine's files and programs, the lab's DNS, and AWS's APIs under their own
        names with the account's root for credentials; see `lab.laptop`.
        """
        return operator_command(argv, folder=self.places.laptop, supervisor=self.supervisor)

    def inside(self, namespace: str) -> AbstractContextManager[None]:
        """Where the calling thread, and it alone, is in one of the lab's network namespaces.

        Their names: `lab.network.INTERNET`, `nat_namespace`, `host_namespace`.
        """
        root = Path(f"/proc/{self.supervisor}/root")
        return entered(namespace, directory=root / NAMESPACES.relative_to("/"))

    def submit(self, message: bytes, *, sender: str | None = None, host: str = "") -> None:
        """Hand a message to ``sendmail -t`` on a host; raises LabError when it refuses."""
        options = () if sender is None else ("-f", sender)
        result = self.run("sendmail", "-t", "-oi", *options, input=message, host=host)
        if result.returncode:
            raise LabError(
                f"sendmail refused the message (status {result.returncode}): "
                f"{result.stdout}{result.stderr}"
            )

    def send(self, *, to: Sequence[str], subject: str, text: str, host: str = "") -> str:
        """Write and submit a message; returns its Message-ID."""
        domain = self.environment.sending_domain
        message = EmailMessage()
        message["From"] = f"Postern <hello@{domain}>"
        message["To"] = ", ".join(to)
        message["Subject"] = subject
        message["Message-ID"] = make_msgid(domain=domain)
        message.set_content(text)
        self.submit(message.as_bytes(), sender=f"hello@{domain}", host=host)
        return str(message["Message-ID"])

    def wait_for(
        self,
        *,
        receivers: Collection[str] | None = None,
        timeout: float = DELIVERY_SECONDS,
        **message: str,
    ) -> list[Verdict]:
        """The verdicts on the message with this ``message_id`` or ``subject``, one a receiver.

        Raises:
            LabError: not everyone had it after ``timeout`` seconds; the text says who not.
        """
        named = {} if receivers is None else {"receivers": list(receivers)}
        answers = self._ask("wait_for", timeout=timeout, **named, **message)
        return [Verdict.from_json(answer) for answer in answers]

    def verdicts(self) -> list[Verdict]:
        """What the receivers got since the lab's start, each one's oldest first."""
        return [Verdict.from_json(answer) for answer in self._ask("verdicts")]

    def publish(self, faults: Collection[str] = ()) -> None:
        """Serve the deployed DNS records with these faults (`lab.internet.zones.FAULTS`)."""
        self._ask("publish", faults=sorted(faults))

    def block_smtp(self, *, blocked: bool) -> None:
        """Block port 25 at every NAT gateway, as AWS does until asked, or open it."""
        self._ask("block_smtp", blocked=blocked)

    def sinkhole(self, behaviour: str, **settings: float) -> None:
        """Let the sinkhole behave so from now on; ``settings`` are the other fields of its Orders.

        See `lab.internet.receivers.sinkhole` for both, and for what it records.
        """
        self._ask("sinkhole", behaviour=Behaviour(behaviour), **settings)

    # What can happen to a host, on purpose

    def crash_host(self, host: str = "") -> str:
        """End a host at once, without shutdown, and return its instance id.

        Its machine is gone when this returns, with everything that its kernel had not yet written
        to the queue volume; the file system there is as dirty as after a power cut. (What it had
        written stays in this machine's page cache, so that the lab's machine itself loses power is
        not imitated.) EC2 terminates the instance, as when it fails its status check, and the Auto
        Scaling group launches a successor, which attaches the same volume: see `wait_for_host`.
        """
        instance_id: str = self._host(host)["instance_id"]
        self._ask("crash", instance_id=instance_id)
        return instance_id

    def wait_for_host(self, *, other_than: str = "", zone: str = "", timeout: float = 300) -> str:
        """The id of a host whose first boot is done, self-test included, once there is one.

        ``other_than`` is the id of a host that does not count, most often the predecessor; with a
        ``zone`` only its own counts.

        Raises:
            LabError: its first boot failed, or none was ready after ``timeout`` seconds; the text
                ends with the last lines of its output.
        """
        deadline = time.monotonic() + timeout
        while True:
            last_lines = "No other host has booted."
            for host in self._ask("hosts"):
                if host["instance_id"] == other_than or zone not in ("", host["zone"]):
                    continue
                output = _text(host["user_data_log"]) or _text(host["console_log"])
                last_lines = "\n".join(output.splitlines()[-20:])
                if "postern: this host is ready" in output:
                    return str(host["instance_id"])
                if "postern: FAILED" in output:
                    raise LabError(f"The first boot of {host['instance_id']} failed:\n{last_lines}")
            if time.monotonic() > deadline:
                raise LabError(f"No host was ready within {timeout:.0f} s. {last_lines}")
            time.sleep(0.5)

    @contextmanager
    def lost_zone(self, zone: str) -> Iterator[str]:
        """A zone is gone within the context: its host, its NAT gateway, and no launch succeeds.

        Yields the id of the host that it had. EC2 launches a successor, whose machine boots when
        the zone is back.
        """
        self._ask("lose_zone", zone=zone, lost=True)
        try:
            yield self.crash_host(zone)
        finally:
            self._ask("lose_zone", zone=zone, lost=False)

    @contextmanager
    def hold_launches(self) -> Iterator[None]:
        """Boot no machine within the context, whatever EC2 launches; what waited boots after it."""
        self._ask("hold_launches", held=True)
        try:
            yield
        finally:
            self._ask("hold_launches", held=False)

    def queue_volume(self) -> QueueVolume:
        """The deployed stack's only queue volume.

        To change what is on it, `hold_launches`, then `crash_host` or terminate the instance, then
        call this, which returns when nothing writes to the image any more.
        """
        resources = self.cloud.client("cloudformation").describe_stack_resources(
            StackName=f"postern-{self.environment.name}-MailHosts"
        )["StackResources"]
        volumes = [
            r["PhysicalResourceId"] for r in resources if r["ResourceType"] == "AWS::EC2::Volume"
        ]
        if len(volumes) != 1:
            raise LabError(f"The deployed stack has {len(volumes)} queue volumes instead of one.")
        (volume_id,) = volumes
        return QueueVolume(
            volume_id=volume_id, image=Path(self._ask("volume_image", volume=volume_id))
        )

    @contextmanager
    def queue_volume_in_use(self) -> Iterator[None]:
        """Attach the queue volume to an instance of nobody's, as long as the context lasts.

        For EC2 only: no machine boots for that instance. Waits until the volume is free: crash or
        terminate its host before, while `hold_launches` keeps the successor away.
        """
        ec2 = self.cloud.client("ec2")
        volume_id = self.queue_volume().volume_id
        ec2.get_waiter("volume_available").wait(
            VolumeIds=[volume_id], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        like = ec2.describe_instances()["Reservations"][0]["Instances"][0]
        instance_id = ec2.run_instances(
            ImageId=like["ImageId"],
            InstanceType=like["InstanceType"],
            SubnetId=like["SubnetId"],
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": NO_MACHINE_TAG, "Value": ""}]}
            ],
        )["Instances"][0]["InstanceId"]
        ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device="/dev/sdz")
        try:
            yield
        finally:
            ec2.detach_volume(VolumeId=volume_id)
            ec2.terminate_instances(InstanceIds=[instance_id])

    def metadata(self, *, answering: bool, refusing: bool = True) -> None:
        """Silence the instance metadata service, or let it answer, for hosts that boot later too.

        Silent, it refuses connections; with ``refusing=False`` it takes them and never answers.
        cloud-init waits two minutes for it at a first boot, and without it finds no user data.
        """
        silence = "refuses" if refusing else "hangs"
        self._ask("metadata", behaviour="answers" if answering else silence)

    def aws_apis(
        self,
        *,
        unanswered: Collection[str] = (),
        refused: Collection[str] = (),
        errors: Collection[str] = (),
    ) -> None:
        """Let some of AWS's APIs fail for the hosts until the next call; without names none does.

        A service is named as in its host name, such as "secretsmanager". ``unanswered`` ones take
        a request and never answer, ``refused`` ones reset every connection, ``errors`` ones answer
        with HTTP status 503.
        """
        behaviours = {"hangs": unanswered, "resets": refused, "errors": errors}
        faults = {name: how for how, names in behaviours.items() for name in names}
        self._ask("aws_apis", faults=faults)

    def set_clock(self, *, offset_seconds: int) -> None:
        """Let the clock of the host's mail services be ahead by so many seconds, or right with 0.

        The services restart; see `lab.instance.clock` for what has that clock and what has not.

        Raises:
            LabError: the host did not change its clock; the text has its words.
        """
        internet = (
            Path(f"/proc/{self.supervisor}/root") / str(self.places.state / "internet/root")[1:]
        )
        (library,) = internet.glob(LIBRARY)
        done = self.run("bash", "-c", clock_script(offset_seconds), input=library.read_bytes())
        if done.returncode:
            raise LabError(f"The clock was not set: {done.stdout}{done.stderr}")

    def _host(self, name: str) -> Any:
        """What the supervisor tells of a running host: see `host_command` for its name."""
        running = self._ask("hosts")
        hosts = [h for h in running if name in ("", h["instance_id"], h["zone"])]
        if len(hosts) != 1:
            known = ", ".join(f"{h['instance_id']} in {h['zone']}" for h in running) or "none"
            raise LabError(f"Name one of the running hosts: {known}.")
        return hosts[0]

    def _ask(self, operation: str, **arguments: Any) -> Any:
        return ask(self.places.control_socket, operation, **arguments)


def _text(path: str) -> str:
    """The contents of a log; empty while it is not there."""
    with suppress(FileNotFoundError):
        return Path(path).read_text(errors="replace")
    return ""


def _follow_the_start(lines: IO[str], steps: Steps, places: Places) -> None:
    """Show the supervisor's steps until it is ready; raises LabError when it is not."""
    with ExitStack() as step:
        for line in lines:
            message = json.loads(line)
            match message:
                case {"begin": title}:
                    step.enter_context(steps.step(title))
                case {"detail": text}:
                    steps.detail(text)
                case {"end": _}:
                    step.close()
                case {"failed": text}:
                    raise LabError(f"{text}\n(The whole story is in {places.log}.)")
                case {"ready": True}:
                    return
        raise LabError(f"The lab ended while it started: see {places.log}.")
