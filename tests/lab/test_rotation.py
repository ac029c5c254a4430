"""A DKIM key is replaced while mail goes on, and each message verifies."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.conftest import RECIPIENTS, deploy_from
from tests.lab.laptop import postern_json
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

OLD, NEW = "s1", "rotated"
SECOND_SERVER = "198.51.100.54"


@pytest.fixture
def folder(lab: Lab) -> Iterator[Path]:
    """Where the operator has the environment's file; what was deployed before is put back."""
    yield lab.variant()
    lab.publish()
    lab.block_smtp(blocked=False)
    deploy_from(lab, "MailHosts")  # the host lets go of the new key


def send(lab: Lab) -> str:
    return lab.send(to=RECIPIENTS, subject=f"rotation {uuid.uuid4()}", text="An ordinary mail.\n")


def selectors(lab: Lab, message_id: str) -> set[str]:
    """The selectors that signed a message, which verifies at both receivers."""
    verdicts = lab.wait_for(message_id=message_id)
    assert [faults(verdict) for verdict in verdicts] == [{}, {}]
    found = set()
    for verdict in verdicts:
        assert verdict.path is not None
        header, _, _ = verdict.path.read_text(errors="replace").partition("\n\n")
        signatures = re.findall(r"^DKIM-Signature:(?:.|\n[ \t])*", header, re.MULTILINE)
        found |= {match for s in signatures for match in re.findall(r"\bs=([^;\s]+)", s)}
    return found


@contextmanager
def waiting_in_the_queue(lab: Lab) -> Iterator[str]:
    """A message that cannot leave before the context's end; its Message-ID."""
    lab.block_smtp(blocked=True)
    message_id = send(lab)
    eventually(lambda: "example.org" in lab.run("mailq").stdout)
    yield message_id
    lab.block_smtp(blocked=False)
    lab.run("sendmail", "-qR@", timeout=120)


def test_every_message_verifies_before_during_and_after_a_rotation(lab: Lab, folder: Path) -> None:
    assert selectors(lab, send(lab)) == {OLD}

    status, published = postern_json(lab, "dkim", "rotate", "--selector", NEW, folder=folder)
    assert (status, published["next"]["step"]) == (0, "publish"), published

    # Not before it is deployed.
    status, refused = postern_json(lab, "dkim", "rotate", folder=folder)
    assert (status, refused["diff"]) == (1, "")
    assert "no key of this selector" in str(refused["findings"])

    # Nor before the whole world has it.
    lab.publish(["second-server-lags"])
    lab.deploy(app=folder)
    status, refused = postern_json(lab, "dkim", "rotate", folder=folder)
    assert (status, refused["diff"]) == (1, "")
    verdicts = {finding["check"]: finding["verdict"] for finding in refused["findings"]}
    at_servers = {check: v for check, v in verdicts.items() if f"{NEW}._domainkey" in check}
    assert {v for check, v in at_servers.items() if SECOND_SERVER in check} == {"wrong"}
    assert {v for check, v in at_servers.items() if SECOND_SERVER not in check} == {"fine"}
    assert "a key the world can't see" in str(refused["findings"])
    lab.publish()
    assert selectors(lab, send(lab)) == {OLD}

    status, signing = postern_json(lab, "dkim", "rotate", folder=folder)
    assert (status, signing["next"]["step"]) == (0, "sign"), signing
    with waiting_in_the_queue(lab) as signed_before:
        lab.deploy(app=folder)
        signed_after = send(lab)
    assert selectors(lab, signed_before) == {OLD}
    assert selectors(lab, signed_after) == {NEW}

    # The old key stays as long as such mail may wait.
    status, refused = postern_json(lab, "dkim", "rotate", folder=folder)
    assert (status, refused["next"]["step"], refused["diff"]) == (1, "retire", "")
    assert "under way" in str(refused["findings"])
