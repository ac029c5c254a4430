"""Whoever waits for a deployment reads sentences, not CloudFormation's event table."""

from datetime import UTC, datetime

import pytest

from lab.cloud.stack_events import StackEvent

GROUP = "AWS::AutoScaling::AutoScalingGroup"


def event(status: str, reason: str = "", *, resource_type: str = GROUP) -> StackEvent:
    return StackEvent(
        event_id="1",
        time=datetime.now(UTC),
        stack="postern-lab-MailHosts",
        logical_id="VpcA1B2C3D4",
        physical_id="",
        resource_type=resource_type,
        status=status,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ("CREATE_COMPLETE", "", "MailHosts: Vpc created"),
        ("DELETE_SKIPPED", "", "MailHosts: Vpc kept"),
        ("CREATE_FAILED", "No room", "MailHosts: Vpc create failed: No room"),
        (
            "CREATE_IN_PROGRESS",
            "Received SUCCESS signal with UniqueId i-1",
            "MailHosts: Vpc: Received SUCCESS signal with UniqueId i-1",
        ),
    ],
)
def test_an_event_is_a_sentence(status: str, reason: str, words: str) -> None:
    assert str(event(status, reason)) == words
    assert event(status, reason).is_worth_telling


def test_the_stack_itself_is_named_alone() -> None:
    rolled_back = event("UPDATE_ROLLBACK_COMPLETE", resource_type="AWS::CloudFormation::Stack")
    assert str(rolled_back) == "MailHosts rolled back to what it was"


def test_the_beginning_of_each_resource_is_not_told() -> None:
    assert not event("CREATE_IN_PROGRESS").is_worth_telling


def test_a_failure_is_told_with_its_cause_and_not_its_consequences() -> None:
    assert event("CREATE_IN_PROGRESS", "Received FAILURE signal with UniqueId i-1").is_failure
    assert event("CREATE_FAILED", "No room").is_failure
    assert not event("CREATE_FAILED", "Resource creation cancelled").is_failure
