"""The settings against what is deployed."""

import pytest

from ops.deployment import CannotTell
from ops.doctor import stacks_as_set
from ops.verdicts import Verdict
from stacks.environment import ElasticIp, Environment
from tests.ops.doctor.conftest import Patient


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("CREATE_COMPLETE", Verdict.FINE),
        ("UPDATE_COMPLETE", Verdict.FINE),
        ("UPDATE_IN_PROGRESS", Verdict.UNKNOWN),
        ("UPDATE_ROLLBACK_COMPLETE", Verdict.WRONG),
        ("UPDATE_ROLLBACK_FAILED", Verdict.WRONG),
        ("ROLLBACK_COMPLETE", Verdict.WRONG),
        ("DELETE_FAILED", Verdict.WRONG),
    ],
)
def test_a_stack_is_fine_when_its_last_deployment_went_through(
    patient: Patient, status: str, verdict: Verdict
) -> None:
    patient.stacks["Network"]["status"] = status
    found = patient.look(stacks_as_set.check_stacks)
    assert found["Stack Network"].verdict is verdict
    assert found["Stack MailHosts"].verdict is Verdict.FINE


def test_a_stack_that_is_not_there_is_wrong(patient: Patient) -> None:
    del patient.stacks["Monitoring"]
    finding = patient.look(stacks_as_set.check_stacks)["Stack Monitoring"]
    assert finding.verdict is Verdict.WRONG
    assert "deploy 'example/*'" in finding.remedy


def changed(settings: Environment, **values: object) -> Environment:
    return settings.model_copy(update=values)


def test_another_domain_or_other_selectors_than_deployed_are_wrong(patient: Patient) -> None:
    settings = patient.settings
    dkim = settings.dkim.model_copy(update={"selectors": ("s2026a",)})
    patient.settings = changed(settings, sending_domain="post.example.com", dkim=dkim)
    found = patient.look(stacks_as_set.check_identity)
    assert found["Sending domain"].verdict is Verdict.WRONG
    assert "says post.example.com" in found["Sending domain"].evidence
    assert found["Selectors"].verdict is Verdict.WRONG
    assert "s2026a, s2026b" in found["Selectors"].evidence


def test_a_selector_that_is_set_to_sign_and_not_deployed_is_wrong(patient: Patient) -> None:
    dkim = patient.settings.dkim.model_copy(update={"signing": "s2026b"})
    patient.settings = changed(patient.settings, dkim=dkim)
    finding = patient.look(stacks_as_set.check_mail_hosts)["Signing selector"]
    assert finding.verdict is Verdict.WRONG
    assert "postern-example-MailHosts has s2026a" in finding.evidence


def test_each_zone_has_an_address_and_a_named_one_is_used(patient: Patient) -> None:
    settings = patient.settings
    patient.settings = changed(settings, availability_zones=("us-east-1a",))
    assert patient.look(stacks_as_set.check_identity)["Elastic IPs"].verdict is Verdict.WRONG
    kept = ElasticIp(allocation_id="eipalloc-0123456789abcdef0", address="203.0.113.77")
    patient.settings = changed(settings, elastic_ips={"us-east-1a": kept})
    finding = patient.look(stacks_as_set.check_identity)["Elastic IPs"]
    assert finding.verdict is Verdict.WRONG
    assert "203.0.113.77" in finding.evidence


def test_each_zone_has_a_host(patient: Patient) -> None:
    groups = patient.aws.answers["autoscaling", "describe_auto_scaling_groups"]
    groups["AutoScalingGroups"][0]["Instances"][0]["LifecycleState"] = "Terminating"
    reservations = patient.aws.answers["ec2", "describe_instances"]
    reservations["Reservations"] = reservations["Reservations"][1:]
    finding = patient.look(stacks_as_set.check_mail_hosts)["Mail hosts"]
    assert finding.verdict is Verdict.WRONG
    assert "in service in us-east-1b" in finding.evidence
    groups["AutoScalingGroups"][1]["Instances"] = []
    with pytest.raises(CannotTell, match="No mail host"):
        patient.look(stacks_as_set.check_mail_hosts)


def test_a_host_of_another_type_is_wrong(patient: Patient) -> None:
    reservations = patient.aws.answers["ec2", "describe_instances"]["Reservations"]
    reservations[1]["Instances"][0]["InstanceType"] = "t3.large"
    finding = patient.look(stacks_as_set.check_mail_hosts)["Instance type"]
    assert finding.verdict is Verdict.WRONG
    assert finding.evidence.startswith("i-us-east-1b is a t3.large")
