"""A wrong clock on the host: that the fault is really there, and really gone afterwards."""

import email
import re
import time
from email.utils import parsedate_to_datetime

import pytest

from lab.lab import Lab
from tests.lab.conftest import send_and_judge

pytestmark = pytest.mark.lab

ERROR = 30  # seconds between sending and looking, at most


def clocks(lab: Lab) -> tuple[float, float]:
    """How many seconds the MTA's clock and the signer's are ahead, by what a message says."""
    path = send_and_judge(lab)["mx.example.net"].path
    assert path is not None
    message = email.message_from_bytes(path.read_bytes())
    signed = re.search(r"\bt=(\d+);", message["DKIM-Signature"])
    (stamp,) = (line for line in message.get_all("Received", []) if "(localhost [127" in line)
    assert signed is not None
    received = parsedate_to_datetime(stamp.rpartition(";")[2].strip()).timestamp()
    return received - time.time(), int(signed[1]) - time.time()


def test_the_mta_and_the_signer_have_the_wrong_clock_until_it_is_put_right(lab: Lab) -> None:
    lab.set_clock(offset_seconds=3600)
    try:
        wrong = clocks(lab)
    finally:
        lab.set_clock(offset_seconds=0)
    right = clocks(lab)

    assert wrong == pytest.approx((3600, 3600), abs=ERROR)
    assert right == pytest.approx((0, 0), abs=ERROR)
