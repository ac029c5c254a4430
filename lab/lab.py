"""The lab as a command or a test sees it: start it or find it, deploy, send, ask, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import IO, Any, Self

from lab.cloud.cloud import Cloud
from lab.control import LabError, NotRunning, ask, supervisor_pid
from lab.internet.verdict import Verdict
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

    def bootstrap(self) -> None:
        """Bootstrap the account, and synthesise meanwhile what `deploy` will deploy."""
        with ThreadPoolExecutor() as executor:
            synthesis = executor.submit(self.cloud.synthesize, self.environment.name)
            self.cloud.bootstrap(account=self.environment.account)
            self._assembly = synthesis.result()

    def deploy(self, *, app: Path | None = None, options: Sequence[str] = ()) -> None:
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
            self.cloud.deploy(self.environment.name, app=app or self._assembly, options=options)
        finally:
            deployed.set()
            teller.join()

    def signals(self) -> list[str]:
        """What CloudFormation heard from instances, in the words of its events, oldest first."""
        events = self.cloud.stack_events(f"postern-{self.environment.name}-MailHosts")
        return [event.reason for event in events if "signal with UniqueId" in event.reason]

    @property
    def instance_ids(self) -> list[str]:
        """The instances that run now."""
        return [host["instance_id"] for host in self._ask("hosts")]

    def host_command(self, *argv: str, instance_id: str | None = None) -> list[str]:
        """The command line that runs ``argv`` as root on an instance, the only one if not named."""
        hosts = [h for h in self._ask("hosts") if instance_id in (None, h["instance_id"])]
        if len(hosts) != 1:
            running = ", ".join(self.instance_ids) or "none"
            raise LabError(f"Name one of the running instances: {running}.")
        return [
            *("nsenter", f"--target={self.supervisor}", "--mount", "--pid", "--wdns=/"),
            *hosts[0]["enter"],
            *argv,
        ]

    def run(
        self,
        *argv: str,
        input: bytes = b"",  # noqa: A002 - the name subprocess.run gives it
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root on the only instance; its exit status is the caller's to judge."""
        finished = subprocess.run(
            self.host_command(*argv), check=False, input=input, capture_output=True, timeout=timeout
        )
        return subprocess.CompletedProcess(
            argv,
            finished.returncode,
            finished.stdout.decode(errors="replace"),
            finished.stderr.decode(errors="replace"),
        )

    def inside(self, namespace: str) -> AbstractContextManager[None]:
        """Where the calling thread, and it alone, is in one of the lab's network namespaces.

        Their names: `lab.network.INTERNET`, `nat_namespace`, `host_namespace`.
        """
        root = Path(f"/proc/{self.supervisor}/root")
        return entered(namespace, directory=root / NAMESPACES.relative_to("/"))

    def submit(self, message: bytes, *, sender: str | None = None) -> None:
        """Hand a message to ``sendmail -t`` on the instance; raises LabError when it refuses."""
        options = () if sender is None else ("-f", sender)
        result = self.run("sendmail", "-t", "-oi", *options, input=message)
        if result.returncode:
            raise LabError(
                f"sendmail refused the message (status {result.returncode}): "
                f"{result.stdout}{result.stderr}"
            )

    def send(self, *, to: Sequence[str], subject: str, text: str) -> str:
        """Write and submit a message; returns its Message-ID."""
        domain = self.environment.sending_domain
        message = EmailMessage()
        message["From"] = f"Postern <hello@{domain}>"
        message["To"] = ", ".join(to)
        message["Subject"] = subject
        message["Message-ID"] = make_msgid(domain=domain)
        message.set_content(text)
        self.submit(message.as_bytes(), sender=f"hello@{domain}")
        return str(message["Message-ID"])

    def wait_for(
        self, *, receivers: Collection[str] | None = None, timeout: float = 60, **message: str
    ) -> list[Verdict]:
        """The verdicts on the message with this ``message_id`` or ``subject``, one a receiver."""
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

    def _ask(self, operation: str, **arguments: Any) -> Any:
        return ask(self.places.control_socket, operation, **arguments)


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
