"""One lab for all end-to-end tests of a process: deploying into it takes much of their time."""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from lab.cloud.cloud import CloudError
from lab.internet.addresses import FIRST_RECEIVER
from lab.internet.verdict import Verdict
from lab.lab import Lab
from lab.places import LAB_VARIABLE
from lab.steps import Steps

RECIPIENTS = ("someone@example.net", "someone@example.org")
NO_ANSWER = 124  # timeout(1) ended it
HOSTS_STACK = "postern-lab-MailHosts"


if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ[LAB_VARIABLE] = str(1 + int(worker.removeprefix("gw")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has a lab of its own comes before all that share one, and what takes longest comes next.

    test_stopping.py comes last of all: it kills the lab that the others use.
    """
    places = {"test_upgrade.py": -2, "test_faults.py": -1, "test_stopping.py": 1}
    items.sort(key=lambda item: places.get(item.path.name, 0))


def connect_to_a_receiver(lab: Lab) -> int:
    """The exit status of a connection to port 25 from the host, by the only user that may."""
    connect = f"exec 3<>/dev/tcp/{FIRST_RECEIVER}/25"
    return lab.run("timeout", "3", "runuser", "-u", "smmta", "--", "bash", "-c", connect).returncode


@contextmanager
def a_new_lab() -> Iterator[Lab]:
    """A lab with nothing deployed, as long as the context lasts."""
    lab = Lab.start(steps=Steps(Console()), keep=False)
    try:
        lab.bootstrap()
        yield lab
    finally:
        lab.end()


@pytest.fixture(scope="session")
def empty_lab() -> Iterator[Lab]:
    """A lab with nothing deployed."""
    with a_new_lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def refusal(empty_lab: Lab) -> str:
    """What the deployment says when the world's DNS holds another DKIM key than the host."""
    empty_lab.publish(["dkim-broken"])
    with pytest.raises(CloudError) as failure:
        empty_lab.deploy()
    empty_lab.publish()
    return str(failure.value)


def deploy_from(lab: Lab, *first: str, app: Path | None = None) -> None:
    """Deploy these stacks, in this order, and then all.

    What a stack imports is to be taken away only after that stack has let go of it; a deployment
    of all of them begins with the one that has it.
    """
    for stack in first:
        lab.deploy(app=app, stacks=stack, options=["--exclusively"])
    lab.deploy(app=app)


@dataclass(frozen=True, kw_only=True)
class FirstDeployment:
    """What was seen right after it; the lab's tests deploy again."""

    host: str
    signals: Sequence[str]
    last_event: str
    """The status of the hosts' stack."""
    answer: int
    """What the new host got at a receiver, with port 25 blocked."""


@pytest.fixture(scope="session")
def first_deployment(empty_lab: Lab, refusal: str) -> FirstDeployment:
    """With port 25 blocked, as it is on a new account. From here on it is open."""
    assert refusal
    empty_lab.block_smtp(blocked=True)
    empty_lab.deploy()
    (host,) = empty_lab.instance_ids
    seen = FirstDeployment(
        host=host,
        signals=empty_lab.signals(),
        last_event=empty_lab.cloud.stack_events(HOSTS_STACK)[-1].status,
        answer=connect_to_a_receiver(empty_lab),
    )
    empty_lab.block_smtp(blocked=False)
    return seen


@pytest.fixture(scope="session")
def lab(
    empty_lab: Lab,
    first_deployment: FirstDeployment,  # noqa: ARG001 - it deploys
) -> Lab:
    """The lab, deployed with port 25 blocked as on a new account, and then opened."""
    return empty_lab


@pytest.fixture(scope="module")
def without_remains(lab: Lab) -> None:
    """The host's volume without what earlier tests left there for an operator to look at.

    Faults leave jobs that were set aside, and bounces that nobody took; nothing takes them away.
    """
    script = """
        for job in /var/spool/queue/mqueue*/Qf*; do rm --force "$job" "${job/Qf/df}"; done
        truncate --size=0 /var/spool/queue/undeliverable
    """
    removed = lab.run("bash", "-c", script)
    assert removed.returncode == 0, removed.stderr


def send_and_judge(lab: Lab) -> dict[str, Verdict]:
    """What each receiver says of one ordinary message, by the receiver's name."""
    message_id = lab.send(to=RECIPIENTS, subject=f"test {uuid.uuid4()}", text="An ordinary mail.\n")
    return {verdict.receiver: verdict for verdict in lab.wait_for(message_id=message_id)}
