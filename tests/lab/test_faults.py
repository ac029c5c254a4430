"""Nothing lost: every fault of `make faults`, under a smaller stream."""

import pytest

from lab.faults.catalogue import FAULTS
from lab.faults.growth import measure
from lab.faults.trial import Fault, run
from lab.lab import Lab

pytestmark = pytest.mark.lab

MESSAGES = 60
SECONDS = 5.0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_accepted_message_is_lost_or_left_unsigned(lab: Lab, fault: Fault) -> None:
    result = run(fault, lab, messages=MESSAGES, seconds=SECONDS)

    assert result.account.delivered + result.account.returned == MESSAGES


def test_a_queue_five_times_as_long_takes_no_more_than_its_share_of_time(lab: Lab) -> None:
    """The best of three each, since one pause of this machine is longer than a drain."""
    short, long = ([measure(lab, messages=messages) for _ in range(3)] for messages in (200, 1000))

    assert max(one.drained_per_second for one in long) > (
        max(one.drained_per_second for one in short) / 2
    )
    assert min(one.idle_run_cpu_seconds for one in long) < 0.5
