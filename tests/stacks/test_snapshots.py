"""What example.toml makes is what was reviewed; `make snapshots` writes it anew.

The reviewed files are in tests/snapshots: a template per stack, and what the host gets: its user
data, and every file of the archive that it unpacks.
"""

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.host_files import shown
from tests.stacks.conftest import (
    AssemblyOf,
    Templates,
    archive_of,
    resources,
    reviewable,
    user_data_of,
    without_hashes,
)

# syrupy expects its files to be named after the tests; ours are named after what they show.
pytestmark = pytest.mark.filterwarnings("ignore:\\s*Can not relate snapshot")


@pytest.mark.parametrize("stack", ["SendingIdentity", "Network", "MailHosts", "Monitoring"])
def test_the_template_is_what_was_reviewed(
    example: Templates, reviewed: SnapshotAssertion, stack: str
) -> None:
    assert reviewable(example[stack]) == reviewed(name=f"{stack}.json")


def test_what_the_host_gets_is_what_was_reviewed(
    assembly_of: AssemblyOf, reviewed: SnapshotAssertion
) -> None:
    assembly = assembly_of("example")
    templates = resources(assembly.templates["MailHosts"], "AWS::EC2::LaunchTemplate")
    first, _second = map(user_data_of, templates.values())
    text = shown(first, archive_of(first, assembly.folder))
    assert without_hashes(text) == reviewed(name="user-data.txt")


def test_the_hosts_differ_in_their_queue_volume_and_signal_only(example: Templates) -> None:
    """So one of them is enough to review."""
    first, second = resources(example["MailHosts"], "AWS::EC2::LaunchTemplate").values()
    lines = zip(user_data_of(first).splitlines(), user_data_of(second).splitlines(), strict=True)
    changed = {one.split("=")[0].strip() for one, other in lines if one != other}
    assert changed == {"QUEUE_VOLUME_ID", "SIGNAL_RESOURCE"}
