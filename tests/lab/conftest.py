"""One lab for all end-to-end tests: deploying into it takes most of their time."""

import uuid
from collections.abc import Iterator

import pytest
from rich.console import Console

from lab.cloud.cloud import CloudError
from lab.internet.verdict import Verdict
from lab.lab import Lab
from lab.steps import Steps

RECIPIENTS = ("someone@example.net", "someone@example.org")


@pytest.fixture(scope="session")
def empty_lab() -> Iterator[Lab]:
    """A lab with nothing deployed."""
    lab = Lab.start(steps=Steps(Console()), keep=False)
    try:
        lab.bootstrap()
        yield lab
    finally:
        lab.end()


@pytest.fixture(scope="session")
def refusal(empty_lab: Lab) -> str:
    """What the deployment says when the world's DNS holds another DKIM key than the host."""
    empty_lab.publish(["dkim-broken"])
    with pytest.raises(CloudError) as failure:
        empty_lab.deploy()
    empty_lab.publish()
    return str(failure.value)


@pytest.fixture(scope="session")
def lab(empty_lab: Lab, refusal: str) -> Lab:
    """The lab, deployed with port 25 blocked as on a new account, and then opened."""
    assert refusal
    empty_lab.block_smtp(blocked=True)
    empty_lab.deploy()
    empty_lab.block_smtp(blocked=False)
    return empty_lab


def send_and_judge(lab: Lab) -> dict[str, Verdict]:
    """What each receiver says of one ordinary message, by the receiver's name."""
    message_id = lab.send(to=RECIPIENTS, subject=f"test {uuid.uuid4()}", text="An ordinary mail.\n")
    return {verdict.receiver: verdict for verdict in lab.wait_for(message_id=message_id)}
