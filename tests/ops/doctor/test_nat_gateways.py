"""NAT gateways: there, on our addresses, and with ports left."""

from datetime import UTC, datetime

import pytest

from ops.doctor import nat_gateways
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import Patient

CHECK = "NAT gateway nat-us-east-1a"
PORTS = "Ports of nat-us-east-1a"


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        ({"State": "failed", "FailureMessage": "Elastic IP in use"}, "failed"),
        ({"NatGatewayAddresses": [{"PublicIp": "192.0.2.9"}]}, "SPF and reverse DNS do not name"),
    ],
)
def test_a_gateway_that_sends_nothing_or_from_elsewhere_is_wrong(
    patient: Patient, change: dict[str, object], evidence: str
) -> None:
    gateways = patient.aws.answers["ec2", "describe_nat_gateways"]["NatGateways"]
    gateways[0] |= change
    found = patient.look(nat_gateways.check_nat_gateways)
    assert found[CHECK].verdict is Verdict.WRONG
    assert evidence in found[CHECK].evidence
    assert str(change.get("FailureMessage", "")) in found[CHECK].remedy
    assert found["NAT gateway nat-us-east-1b"].verdict is Verdict.FINE


def test_each_zone_has_a_gateway(patient: Patient) -> None:
    del patient.aws.answers["ec2", "describe_nat_gateways"]["NatGateways"][0]
    assert patient.look(nat_gateways.check_nat_gateways)["NAT gateways"].verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("sums", "verdict"),
    [([0.0, 0.0], Verdict.FINE), ([0.0, 3.0], Verdict.WRONG), ([], Verdict.UNKNOWN)],
)
def test_errors_of_the_last_day_count_and_no_figure_is_not_zero(
    patient: Patient, sums: list[float], verdict: Verdict
) -> None:
    points = [{"Timestamp": datetime.now(UTC), "Sum": value} for value in sums]
    patient.aws.answers["cloudwatch", "get_metric_statistics"] = {"Datapoints": points}
    assert patient.look(nat_gateways.check_port_errors)[PORTS].verdict is verdict


def test_figures_that_aws_refuses_are_not_told(patient: Patient) -> None:
    patient.aws.refuse("cloudwatch", "get_metric_statistics")
    assert patient.look(nat_gateways.check_port_errors)[PORTS].verdict is Verdict.UNKNOWN
