"""The instance metadata service, and with it the role's credentials, is root's alone."""

import pytest

from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.attacks.host import refused_so_far
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

ASK = "curl --silent --show-error --max-time 5 http://169.254.169.254/latest/meta-data/"

# Multipath TCP: its sockets are the kernel's, which some packet filters took for nobody's.
MPTCP = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as mptcp:
    mptcp.settimeout(5)
    mptcp.connect(("169.254.169.254", 80))
"""


def test_root_is_answered(lab: Lab) -> None:
    token = lab.run(
        *("curl", "--silent", "--request", "PUT"),
        *("--header", "X-aws-ec2-metadata-token-ttl-seconds: 60"),
        "http://169.254.169.254/latest/api/token",
    ).stdout
    role = lab.run(
        *("curl", "--silent", "--header", f"X-aws-ec2-metadata-token: {token}"),
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    ).stdout

    assert token
    assert role


@pytest.mark.parametrize(
    "user", ["nobody", "smmta", "smmsp", "opendkim", "daemon", "www-data", "_apt"]
)
def test_nobody_else_is_and_each_try_is_counted(lab: Lab, user: str) -> None:
    before = refused_so_far(lab, chain="metadata")

    for _ in range(3):
        asked = lab.run("runuser", "-u", user, "--", *ASK.split())
        assert (asked.returncode, asked.stdout) == (7, "")  # could not connect

    assert refused_so_far(lab, chain="metadata") == before + 3


@pytest.mark.parametrize(
    "command",
    [
        ["unshare", "--user", "--map-root-user", *ASK.split()],
        ["python3", "-c", MPTCP],
        ["curl", "--silent", "--max-time", "5", "http://[::ffff:169.254.169.254]/"],
    ],
    ids=["root of a user namespace", "multipath TCP", "mapped IPv4"],
)
def test_nobody_gets_around_it(lab: Lab, command: list[str]) -> None:
    before = refused_so_far(lab, chain="metadata")

    asked = lab.run("runuser", "-u", "nobody", "--", *command)

    assert asked.returncode != 0
    assert asked.stdout == ""
    assert refused_so_far(lab, chain="metadata") > before


def test_without_the_packet_filter_there_is_no_network(lab: Lab) -> None:
    def succeeds(*argv: str) -> bool:
        return lab.run(*argv).returncode == 0

    rules = "/etc/postern/packet-filter.nft"
    lab.run("mv", rules, f"{rules}.away")
    try:
        assert lab.run("systemctl", "restart", "systemd-networkd").returncode != 0
        state = lab.run(
            "systemctl", "show", "--property=ActiveState", "--value", "systemd-networkd"
        )
        assert state.stdout.strip() in ("failed", "activating")
    finally:
        lab.run("mv", f"{rules}.away", rules)
        lab.run("systemctl", "reset-failed", "systemd-networkd")
        assert lab.run("systemctl", "restart", "systemd-networkd").returncode == 0

    # The resolver learns its server from DHCP, a moment after the addresses are there.
    eventually(lambda: succeeds("curl", "--silent", "--max-time", "2", "http://169.254.169.254/"))
    eventually(lambda: succeeds("getent", "hosts", "mx.example.net"))
    message_id = lab.send(to=["someone@example.net"], subject="back", text="Here again.\n")
    (verdict,) = lab.wait_for(message_id=message_id, receivers=["mx.example.net"])
    assert faults(verdict) == {}
