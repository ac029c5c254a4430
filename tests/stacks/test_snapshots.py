"""What example.toml makes is what was reviewed; `make snapshots` writes it anew.

The reviewed files are in tests/snapshots: a template per stack, and the user-data decoded.
"""

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.stacks.conftest import Templates, resources, reviewable, user_data_of

# syrupy expects its files to be named after the tests; ours are named after what they show.
pytestmark = pytest.mark.filterwarnings("ignore:\\s*Can not relate snapshot")


@pytest.mark.parametrize("stack", ["SendingIdentity", "Network", "MailHosts"])
def test_the_template_is_what_was_reviewed(
    example: Templates, reviewed: SnapshotAssertion, stack: str
) -> None:
    assert reviewable(example[stack]) == reviewed(name=f"{stack}.json")


def test_the_user_data_is_what_was_reviewed(
    example: Templates, reviewed: SnapshotAssertion
) -> None:
    first, _second = resources(example["MailHosts"], "AWS::EC2::LaunchTemplate").values()
    assert user_data_of(first) == reviewed(name="user-data.txt")


def test_the_hosts_differ_in_their_queue_volume_and_signal_only(example: Templates) -> None:
    """So one of them is enough to review."""
    first, second = resources(example["MailHosts"], "AWS::EC2::LaunchTemplate").values()
    lines = zip(user_data_of(first).splitlines(), user_data_of(second).splitlines(), strict=True)
    changed = {one.split("=")[0].strip() for one, other in lines if one != other}
    assert changed == {"QUEUE_VOLUME_ID", "SIGNAL_RESOURCE"}
