"""The emulated AWS of the lab, and the real CDK command line that deploys into it."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from lab.cloud import agents
from lab.cloud.listeners import exposed_addresses
from lab.cloud.stack_events import EventReader, StackEvent, followed, stack_events
from lab.control import LabError
from lab.places import PROJECT, Places
from stacks.environment import SUFFIX_VARIABLE

START_SECONDS = 60

# The emulator accepts any. An access key of twelve digits would choose an account by that number.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


_NOBODY = "http://127.0.0.1:9"


class CloudError(LabError):
    """The emulated AWS did not start, or refused a deployment; the text gives the reason."""


class Cloud:
    """The emulated AWS that lives in a state directory.

    One process starts it; any other can make a `Cloud` on the same ``state`` and use it.

    Args:
        python: the interpreter of the emulator's own virtual environment.
        state: the lab's state directory; logs and the endpoint's address go to ``cloud/`` in it.
        cdk: the CDK command line, ``node_modules/.bin/cdk``.
        progress: gets a line for each thing that happens in a deployment.
        region: the Region of clients and of the command line.
        shutdown_seconds: for how long an instance is shutting down before it is terminated.
    """

    def __init__(
        self,
        *,
        python: Path,
        state: Path,
        cdk: Path,
        progress: Callable[[str], None],
        region: str = "us-east-1",
        shutdown_seconds: float = 2.0,
    ) -> None:
        self.region = region
        self._shutdown_seconds = shutdown_seconds
        self.directory = state / "cloud"
        self._control_socket = Places(state=state).control_socket
        self._python = python
        self._cdk = cdk
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None

    # The emulator

    @property
    def endpoint(self) -> str:
        """``http://127.0.0.1:<port>``; raises CloudError when no emulator was started here."""
        try:
            return self._endpoint_file.read_text().strip()
        except FileNotFoundError as error:
            raise CloudError("No emulated AWS is running: start the lab first.") from error

    @property
    def pid(self) -> int:
        """The emulator's process id, in the process that started it."""
        assert self._process is not None, "the emulator was not started here"
        return self._process.pid

    @property
    def emulator_log(self) -> Path:
        return self.directory / "emulator.log"

    @property
    def cdk_log(self) -> Path:
        """Every line that the CDK command line wrote, of all its runs."""
        return self.directory / "cdk.log"

    @property
    def _endpoint_file(self) -> Path:
        return self.directory / "endpoint"

    def start(self, *, port: int | None = None) -> str:
        """Start the emulator on loopback and return its endpoint once it answers.

        Without ``port`` a free one is taken. The emulator ends with this process.

        Raises:
            CloudError: it did not come up, or listens on anything but loopback.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        port = port or _free_port()
        with self.emulator_log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._python, "-m", "lab.cloud.emulator"],
                cwd=PROJECT,
                env=self._emulator_environment(port),
                stdin=subprocess.PIPE,  # the emulator ends when this pipe does
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever uses the lab, not for the lab
            )
        endpoint = f"http://127.0.0.1:{port}"
        try:
            self._wait_until_healthy(endpoint)
            _refuse_exposure(self._process.pid)
            self._endpoint_file.write_text(endpoint)
            agents.publish(s3=self.client("s3"), region=self.region)
        except BaseException:
            self.stop()
            raise
        return endpoint

    def stop(self) -> None:
        """End the emulator that this object started; what was deployed is gone with it."""
        self._endpoint_file.unlink(missing_ok=True)
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _emulator_environment(self, port: int) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.directory),
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_REGION": self.region,
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "AUTH": "true",
            "POSTERN_SHUTDOWN_SECONDS": str(self._shutdown_seconds),
            # The way to the machines, for Run Command; who starts the machines listens there.
            "POSTERN_CONTROL_SOCKET": str(self._control_socket),
        }

    def _wait_until_healthy(self, endpoint: str) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=5):  # noqa: S310
                    return
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
                time.sleep(0.05)
        raise CloudError(
            f"The emulated AWS did not start. {self.emulator_log} ends with:\n"
            + _last_lines(self.emulator_log.read_text(errors="replace"))
        )

    # What it holds

    def client(self, service: str) -> Any:
        """A boto3 client of the emulated AWS."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}),
        )

    def create_hosted_zone(self, *, hosted_zone_id: str, name: str) -> None:
        """Create the public hosted zone that an environment's file refers to, with that very id."""
        self.client("route53").create_hosted_zone(Name=name, CallerReference=hosted_zone_id)

    def stack_events(self, stack: str) -> list[StackEvent]:
        """Every event of a stack, oldest first; ``stack`` is a name, or the id of a deleted one."""
        return stack_events(self.client("cloudformation"), stack)

    # Deployment

    def synthesize(self, environment: str, *, app: Path = PROJECT) -> Path:
        """``cdk synth``: an environment's cloud assembly, which `deploy` and `destroy` take as app.

        Needs no running emulator, so it can be done while that starts. Raises CloudError with what
        the app said.
        """
        arguments, directory = self._source(environment, app)
        self._run_cdk(["synth", f"{environment}/*", "--quiet", *arguments], directory=directory)
        return self._assembly(app)

    def bootstrap(self, *, account: str) -> None:
        """``cdk bootstrap``: the bucket and roles that deployments need; raises CloudError."""
        self._run_cdk_and_tell(
            ["bootstrap", f"aws://{account}/{self.region}"],
            directory=self.directory,  # without a cdk.json there is nothing to synthesise
            stack_prefix="CDKToolkit",
        )

    def deploy(
        self,
        environment: str,
        *,
        app: Path = PROJECT,
        stacks: str = "*",
        options: Sequence[str] = (),
    ) -> None:
        """``cdk deploy`` of an environment's stacks; raises CloudError with AWS's reasons.

        ``app`` is the directory of a ``cdk.json``, or an assembly that `synthesize` made.
        ``options`` are further ones of the command line.
        """
        arguments, directory = self._source(environment, app)
        self._run_cdk_and_tell(
            [
                *("deploy", f"{environment}/{stacks}", *arguments),
                *("--require-approval", "never", "--progress", "events"),
                *options,
            ],
            directory=directory,
            stack_prefix=f"postern-{environment}-",
        )

    def destroy(self, environment: str, *, app: Path = PROJECT) -> None:
        """``cdk destroy`` of an environment's stacks; raises CloudError with AWS's reasons.

        ``app`` is what `deploy` takes.
        """
        arguments, directory = self._source(environment, app)
        self._run_cdk_and_tell(
            ["destroy", f"{environment}/*", *arguments, "--force"],
            directory=directory,
            stack_prefix=f"postern-{environment}-",
        )

    def _assembly(self, app: Path) -> Path:
        """Where the assembly of an app goes: another app's must not take the place of ours."""
        return self.directory / "assembly" if app == PROJECT else app / "cdk.out"

    def _source(self, environment: str, app: Path) -> tuple[list[str], Path]:
        """The options that name the app to the command line, and the directory to run it in."""
        if (app / "manifest.json").exists():
            return ["--app", str(app)], self.directory
        assembly = self._assembly(app)
        shutil.rmtree(assembly, ignore_errors=True)  # its old report would fail the deploy
        return [
            *("--context", f"environment={environment}"),
            *("--output", str(assembly)),
        ], app

    def _run_cdk_and_tell(
        self, arguments: Sequence[str], *, directory: Path, stack_prefix: str
    ) -> None:
        """Run the command line, telling the events of the stacks that it works on."""
        failures: list[StackEvent] = []

        def tell(event: StackEvent) -> None:
            if event.is_failure:
                failures.append(event)
            if event.is_worth_telling:
                self._progress(str(event))

        reader = EventReader(self.client("cloudformation"), prefix=stack_prefix)
        try:
            with followed(reader, tell):
                self._run_cdk(arguments, directory=directory)
        except BotoCoreError as error:
            raise CloudError(
                f"The emulated AWS stopped answering ({error}): see {self.emulator_log}."
            ) from error
        except CloudError as error:
            if not failures:
                raise
            reasons = "\n".join(f"  {event}" for event in failures)
            raise CloudError(
                f"`cdk {arguments[0]}` failed:\n{reasons}\nThe whole story is in {self.cdk_log}."
            ) from error

    def _run_cdk(self, arguments: Sequence[str], *, directory: Path) -> None:
        """Run the command line to its end, its output in `cdk_log`; raises CloudError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [str(self._cdk), *arguments, "--no-color", "--no-notices", "--ci"]
        with self.cdk_log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            began = log.tell()
            code = self._wait_for(command, directory, log.fileno())
        if code:
            output = self.cdk_log.read_bytes()[began:].decode(errors="replace")
            raise CloudError(
                f"`cdk {arguments[0]}` failed. {self.cdk_log} ends with:\n{_last_lines(output)}"
            )

    def _wait_for(self, command: Sequence[str], directory: Path, output: int) -> int:
        with subprocess.Popen(
            command,
            cwd=directory,
            env=self._cdk_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                return process.wait()
            except BaseException:  # Ctrl-C too: leave nothing running
                process.kill()  # asked politely, it would wait for the deployment
                raise

    def _cdk_environment(self) -> dict[str, str]:
        """The caller's environment, for the emulator: no accounts, proxies and sandboxes."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AWS_")
            and not name.lower().endswith("_proxy")
            and name != SUFFIX_VARIABLE
        }
        return {
            **inherited,
            **_CREDENTIALS,
            # cdk.json starts the app with `python`: that of this program's virtual environment.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AWS_REGION": self.region,
            # Never the real AWS: without an emulator there is nobody at the discard port.
            "AWS_ENDPOINT_URL": self.endpoint if self._endpoint_file.exists() else _NOBODY,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Its cache of account ids by access key would outlive this emulator.
            "CDK_HOME": str(self.directory / "cdk-home"),
            "CDK_DISABLE_VERSION_CHECK": "1",
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            # The templates are checked by `make check`; here it would cost seconds of every deploy.
            "CDK_VALIDATION": "false",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        }


def _refuse_exposure(pid: int) -> None:
    if exposed := exposed_addresses(pid):
        raise CloudError(
            f"The emulated AWS listens on {', '.join(sorted(exposed))}, where other machines could "
            "reach it. It was stopped."
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _last_lines(text: str, count: int = 20) -> str:
    return "\n".join(text.splitlines()[-count:])
