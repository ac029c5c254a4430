"""A wrong clock on the host: that the fault is really there, and really gone afterwards."""

import email
import re
import time
from email.utils import parsedate_to_datetime

import pytest

from lab.lab import Lab
from tests.lab.conftest import send_and_judge

pytestmark = pytest.mark.lab

ERROR = 2  # seconds: the stamps have whole ones


def assert_ahead(lab: Lab, seconds: int) -> None:
    """Send a message; the MTA and the signer must stamp it so many seconds after the right time."""
    before = time.time()
    path = send_and_judge(lab)["mx.example.net"].path
    after = time.time()
    assert path is not None
    message = email.message_from_bytes(path.read_bytes())
    signed = re.search(r"\bt=(\d+);", message["DKIM-Signature"])
    (stamp,) = (line for line in message.get_all("Received", []) if "(localhost [127" in line)
    assert signed is not None
    received = parsedate_to_datetime(stamp.rpartition(";")[2].strip()).timestamp()
    for stamped in (received, int(signed[1])):
        assert before - ERROR <= stamped - seconds <= after + ERROR


def test_the_mta_and_the_signer_have_the_wrong_clock_until_it_is_put_right(lab: Lab) -> None:
    lab.set_clock(offset_seconds=3600)
    try:
        assert_ahead(lab, 3600)
    finally:
        lab.set_clock(offset_seconds=0)
    assert_ahead(lab, 0)
