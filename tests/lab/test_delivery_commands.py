"""The pipeline's builds, run from their own commands as the synthesised template has them.

CodeBuild runs a build's commands in one shell and stops at the first that fails; so does this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from lab.network import INTERNET
from lab.places import PROJECT
from stacks.delivery import GATE_ROLE_NAME
from stacks.delivery_settings import DeliverySettings, PipelineSettings
from stacks.environment import EnvironmentDelivery, load
from tests.stacks.conftest import Assembly, resources, statements
from tests.stacks.delivered import build_spec, commands, stages, synthesise_delivery

pytestmark = pytest.mark.lab

# A newcomer's machine downloads everything first.
BUILD_SECONDS = 1800
# Set while a build's commands run, so that a `make check` that ran this file would not go on so.
INSIDE = "POSTERN_INSIDE_A_BUILD"

DELIVERY_TOML = """\
repository = "example/postern"
branch = "main"

[pipeline]
account = "{account}"
region = "{region}"
connection_arn = "{connection}"
notify = "operations@example.com"
"""


def delivery_of_the_lab() -> tuple[DeliverySettings, Path]:
    """The settings of a pipeline in the lab's own account, and the environment's file."""
    file = PROJECT / "environments" / "lab.toml"
    environment = load(file)
    connection = (
        f"arn:aws:codeconnections:{environment.region}:{environment.account}:connection/"
        "01234567-89ab-cdef-0123-456789abcdef"
    )
    pipeline = PipelineSettings(
        account=environment.account,
        region=environment.region,
        connection_arn=connection,
        notify="operations@example.com",
    )
    return DeliverySettings(repository="example/postern", branch="main", pipeline=pipeline), file


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A pipeline that delivers the lab's environment, asking a person before each deployment."""
    settings, file = delivery_of_the_lab()
    always = EnvironmentDelivery(order=1, approval="always")
    environment = load(file).model_copy(update={"delivery": always})
    return synthesise_delivery(settings, [environment], tmp_path_factory.mktemp("delivery"))


def commands_of(delivery: Assembly, stage: str, name: str) -> str:
    """The build's commands as one script."""
    template = delivery.templates["Delivery"]
    (action,) = (action for action in stages(template)[stage] if action.name == name)
    spec = build_spec(template, delivery.folder, action)
    known = {"runtime-versions", "commands"}
    assert all(phase.keys() <= known for phase in spec["phases"].values())
    return "\n".join(["set -e", *commands(spec)])


def newcomer() -> dict[str, str]:
    """This machine's environment variables without this project's tools."""
    own = (PROJECT, Path(sys.prefix))
    path = [
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not any(Path(folder).is_relative_to(place) for place in own)
    ]
    dropped = ("PYTEST_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS", "AWS_", "ENV")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    python = str(Path(sys.base_prefix) / "bin")
    return {**kept, "PATH": os.pathsep.join([python, *path]), INSIDE: "yes"}


@pytest.mark.skipif(INSIDE in os.environ, reason="this is what the build runs")
def test_a_clean_clone_is_checked_and_synthesised(delivery: Assembly, tmp_path: Path) -> None:
    # What CodePipeline hands over: the commit's files, without the repository.
    archive = tmp_path / "source.tar"
    owner_does_not_matter = ("-c", "safe.directory=*")
    subprocess.run(
        ["git", *owner_does_not_matter, "archive", f"--output={archive}", "HEAD"],
        cwd=PROJECT,
        check=True,
    )
    clone = tmp_path / "clone"
    shutil.unpack_archive(archive, clone, filter="data")
    script = commands_of(delivery, "Build", "Synth")
    assert "make check" in script
    log = tmp_path / "build.log"
    with log.open("wb") as output:
        built = subprocess.run(
            ["sh", "-c", script],
            cwd=clone,
            env=newcomer(),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=BUILD_SECONDS,
        )
    assert built.returncode == 0, log.read_text(errors="replace")[-5000:]
    assert (clone / ".venv").is_dir()
    assert (clone / "node_modules").is_dir()
    manifest = json.loads((clone / "cdk.out" / "manifest.json").read_text())
    assert {"assembly-dev", "assembly-prod", "Delivery"} <= manifest["artifacts"].keys()


# In the lab


@pytest.fixture(scope="module")
def gated(lab: Lab, delivery: Assembly) -> Iterator[Lab]:
    """The lab with its environment delivered by a pipeline: with the gate's role and access.

    The gate's role has the permissions and the name that the template gives it. Its trust is the
    account's instead of CodeBuild's, which no emulated AWS plays.
    """
    settings, _ = delivery_of_the_lab()
    assert settings.pipeline is not None
    folder = lab.variant()
    file = folder / "environments" / "lab.toml"
    file.write_text(f'{file.read_text()}\n[delivery]\norder = 1\napproval = "always"\n')
    (folder / "delivery.toml").write_text(
        DELIVERY_TOML.format(
            account=settings.pipeline.account,
            region=settings.pipeline.region,
            connection=settings.pipeline.connection_arn,
        )
    )
    alarms = alarm_states(lab)
    iam = lab.cloud.client("iam")
    iam.create_role(
        RoleName=GATE_ROLE_NAME,
        AssumeRolePolicyDocument=json.dumps(allow("sts:AssumeRole", Principal={"AWS": "*"})),
    )
    iam.put_role_policy(
        RoleName=GATE_ROLE_NAME,
        PolicyName="gate",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": gate_of(delivery)}),
    )
    try:
        lab.deploy(app=folder)
        yield lab
    finally:
        lab.publish()
        (folder / "delivery.toml").unlink()
        iam.delete_role_policy(RoleName=GATE_ROLE_NAME, PolicyName="gate")
        iam.delete_role(RoleName=GATE_ROLE_NAME)
        lab.cloud.client("cloudformation").delete_stack(StackName="postern-lab-DoctorAccess")
        lab.deploy()
        set_alarms(lab, alarms)


def allow(action: str, **more: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, **more}]}


def gate_of(delivery: Assembly) -> list[dict[str, Any]]:
    """What the gate's role may do in AWS's own APIs of the environment: be doctor."""
    template = delivery.templates["Delivery"]
    (gate,) = (
        logical_id
        for logical_id, role in resources(template, "AWS::IAM::Role").items()
        if role["Properties"].get("RoleName") == GATE_ROLE_NAME
    )
    found = [s for s in statements(template, gate) if s.get("Sid") == "BeDoctor"]
    assert len(found) == 1
    return found


@contextmanager
def role_that_assumes(lab: Lab, role: str) -> Iterator[str]:
    """The name of a role that may assume this one, and nothing else."""
    iam = lab.cloud.client("iam")
    name = "somebody"
    trust = allow("sts:AssumeRole", Principal={"AWS": "*"})
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    document = json.dumps(allow("sts:AssumeRole", Resource=role))
    iam.put_role_policy(RoleName=name, PolicyName="assume", PolicyDocument=document)
    try:
        yield name
    finally:
        iam.delete_role_policy(RoleName=name, PolicyName="assume")
        iam.delete_role(RoleName=name)


def session(lab: Lab, role: str) -> dict[str, Any]:
    """Credentials of a role, in the words of the container service that CodeBuild has."""
    answer = lab.cloud.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{lab.environment.account}:role/{role}", RoleSessionName="build"
    )["Credentials"]
    return {
        "AccessKeyId": answer["AccessKeyId"],
        "SecretAccessKey": answer["SecretAccessKey"],
        "Token": answer["SessionToken"],
        "Expiration": f"{answer['Expiration']:%Y-%m-%dT%H:%M:%SZ}",
    }


@contextmanager
def credentials_endpoint(lab: Lab, credentials: Mapping[str, Any]) -> Iterator[str]:
    """The URL where a build asks for its role's credentials, on the laptop's loopback interface."""
    document = json.dumps(credentials).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            pass

    with lab.inside(INTERNET):
        server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/credentials"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def build(
    lab: Lab, script: str, *, role: str, folder: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a build's commands on the lab's Internet, with that role's credentials."""
    with credentials_endpoint(lab, session(lab, role)) as url:
        assignments = [f"{name}={value}" for name, value in variables.items()]
        return subprocess.run(
            lab.operator_command(
                *("env", "--unset=AWS_ACCESS_KEY_ID", "--unset=AWS_SECRET_ACCESS_KEY"),
                f"AWS_CONTAINER_CREDENTIALS_FULL_URI={url}",
                *assignments,
                *("sh", "-c", script),
            ),
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )


def gate(lab: Lab, delivery: Assembly, *, minutes: int) -> tuple[int, dict[str, str]]:
    """How the environment's Doctor build ends, and its findings that are not fine."""
    script = commands_of(delivery, "postern-lab", "Doctor")
    try:
        done = build(
            lab, script, role=GATE_ROLE_NAME, folder=PROJECT, variables={"SETTLE": str(minutes)}
        )
    finally:
        (PROJECT / "doctor-profile").unlink(missing_ok=True)
    assert "{" in done.stdout, done.stderr
    told, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    assert "findings" in told, told
    return done.returncode, {
        finding["check"]: f"{finding['verdict']}: {finding['evidence']}"
        for finding in told["findings"]
        if finding["verdict"] != "fine"
    }


def alarm_states(lab: Lab) -> dict[str, str]:
    alarms = lab.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return {alarm["AlarmName"]: alarm["StateValue"] for alarm in alarms}


def set_alarms(lab: Lab, states: Mapping[str, str]) -> None:
    cloudwatch = lab.cloud.client("cloudwatch")
    for name, state in states.items():
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="for a test")


def silence(lab: Lab) -> None:
    """Every alarm is OK: of most of them nothing in the emulated AWS judges the metrics."""
    set_alarms(lab, dict.fromkeys(alarm_states(lab), "OK"))


@pytest.fixture
def quiet(gated: Lab) -> None:
    silence(gated)


@pytest.mark.usefixtures("without_remains")
def test_the_gate_opens_for_a_healthy_environment_with_no_more_than_doctors_role(
    gated: Lab, delivery: Assembly
) -> None:
    """The emulated AWS refuses whatever the role of DoctorAccess does not allow.

    A host's report may ring an alarm again with what an earlier test left it; such a look is taken
    anew.
    """
    for _ in range(6):
        silence(gated)
        status, wrong = gate(gated, delivery, minutes=0)
        if not wrong or any(not check.startswith("Alarm ") for check in wrong):
            break
    assert wrong == {}
    assert status == 0


@pytest.mark.usefixtures("quiet")
def test_the_gate_stays_closed_while_something_is_wrong(gated: Lab, delivery: Assembly) -> None:
    gated.publish(["dkim-missing"])
    status, wrong = gate(gated, delivery, minutes=0)
    gated.publish()
    # make's own: the recipe failed, whatever its status was.
    assert status == 2
    assert wrong["DKIM record s1"].startswith("wrong: ")


@pytest.mark.usefixtures("quiet")
def test_the_gate_stays_closed_where_its_role_may_not_look(gated: Lab, delivery: Assembly) -> None:
    iam = gated.cloud.client("iam")
    role = f"postern-{gated.environment.name}-doctor"
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    policy = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    less = [s for s in policy["Statement"] if s["Sid"] != "DoctorAsksMailHosts"]
    assert len(less) == len(policy["Statement"]) - 1
    document = json.dumps({**policy, "Statement": less})
    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
    try:
        status, wrong = gate(gated, delivery, minutes=0)
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(policy))
    assert status == 2
    assert any("SendCommand" in text for text in wrong.values()), wrong


def test_nobody_but_the_gate_becomes_doctor(gated: Lab, delivery: Assembly) -> None:
    doctor = f"arn:aws:iam::{gated.environment.account}:role/postern-lab-doctor"
    with role_that_assumes(gated, doctor) as somebody:
        done = build(
            gated,
            commands_of(delivery, "postern-lab", "Doctor"),
            role=somebody,
            folder=PROJECT,
            variables={"SETTLE": "0"},
        )
    (PROJECT / "doctor-profile").unlink()
    assert done.returncode == 2
    assert "AccessDenied" in done.stdout + done.stderr


def test_the_diff_is_shown_with_no_more_than_the_lookup_role(
    gated: Lab, delivery: Assembly, tmp_path: Path
) -> None:
    """As deployed nothing broadens; then a template allows its role one thing more."""
    assembly = tmp_path / "assembly"
    shutil.copytree(delivery.folder, assembly)
    account, region = gated.environment.account, gated.environment.region
    lookup = f"arn:aws:iam::{account}:role/cdk-hnb659fds-lookup-role-{account}-{region}"
    install, *shown = commands_of(delivery, "postern-lab", "Diff").splitlines()[1:]
    assert install.startswith("npm install -g aws-cdk@")  # it is in the project already
    script = "\n".join(["set -e", *shown, 'echo "BROADENING=$BROADENING"'])
    variables = {
        "PATH": f"{PROJECT / 'node_modules' / '.bin'}:{os.environ['PATH']}",
        "CODEBUILD_BUILD_ID": "project:build",
        "HOME": str(tmp_path),
    }

    def diff(role: str) -> str:
        done = build(gated, script, role=role, folder=assembly, variables=variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    with role_that_assumes(gated, lookup) as role:
        assert "BROADENING=does not broaden permissions" in diff(role)
        (template,) = assembly.glob("*/*MailHosts*.template.json")
        hosts = json.loads(template.read_text())
        policy = next(iter(resources(hosts, "AWS::IAM::Policy").values()))["Properties"]
        policy["PolicyDocument"]["Statement"].append(
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
        )
        template.write_text(json.dumps(hosts))
        told = diff(role)
    assert "s3:GetObject" in told
    assert "BROADENING=BROADENS PERMISSIONS" in told
