"""Nothing lost: every fault of `make faults`, under a smaller stream."""

import pytest

from lab.faults.catalogue import FAULTS
from lab.faults.growth import measure
from lab.faults.trial import Fault, run
from lab.lab import Lab

pytestmark = pytest.mark.lab

MESSAGES = 60
SECONDS = 5.0
# The longest of all, in which nothing can be signalled for minutes: `make faults` has it.
TOO_LONG = "instance metadata silent during set-up: the update fails"
TRIED = [fault for fault in FAULTS if fault.name != TOO_LONG]


@pytest.mark.parametrize("fault", TRIED, ids=lambda fault: fault.name)
def test_no_accepted_message_is_lost_or_left_unsigned(lab: Lab, fault: Fault) -> None:
    result = run(fault, lab, messages=MESSAGES, seconds=SECONDS)

    assert result.account.accepted == MESSAGES
    assert result.account.lost == 0


def test_a_queue_five_times_as_long_takes_no_more_than_its_share_of_time(lab: Lab) -> None:
    short, long = (measure(lab, messages=messages) for messages in (200, 1000))

    assert long.drained_per_second > short.drained_per_second / 2
    assert long.idle_run_cpu_seconds < 0.5
