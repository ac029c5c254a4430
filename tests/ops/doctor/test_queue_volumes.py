"""Mail on a volume that no host has is sent by nobody, and nothing else would tell."""

import pytest

from ops.doctor import queue_volumes
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import Patient

CELL = {"Key": "postern:cell", "Value": "example/us-east-1c"}
LEFT = {"VolumeId": "vol-left", "State": "available", "Size": 20, "Attachments": []}


def test_all_are_in_use(patient: Patient) -> None:
    found = patient.look(queue_volumes.check_queue_volumes)
    assert {check: finding.verdict for check, finding in found.items()} == {
        "Queue volumes": Verdict.FINE
    }


@pytest.mark.parametrize("drained", [False, True])
def test_a_volume_that_a_zone_left_behind_is_wrong_unless_it_was_drained(
    patient: Patient, drained: bool
) -> None:
    tags = [{"Key": "postern:drained", "Value": "2026-11-20T10:00:00Z"}] if drained else []
    volumes = patient.aws.answers["ec2", "describe_volumes"]["Volumes"]
    volumes.append({**LEFT, "Tags": [CELL, *tags]})
    (found,) = patient.look(queue_volumes.check_queue_volumes).values()
    assert found.check == "Queue volume vol-left"
    assert found.verdict is (Verdict.FINE if drained else Verdict.WRONG)
