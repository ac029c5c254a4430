"""Mail leaves by sendmail alone: nobody else on the host speaks to a receiver."""

import pytest

from lab.internet import addresses
from lab.lab import Lab
from tests.lab.attacks.host import refused_so_far

pytestmark = pytest.mark.lab

CONNECT = f"""
import socket
with socket.create_connection(("{addresses.FIRST_RECEIVER}", 25), timeout=30) as connection:
    print(connection.recv(3).decode())
"""
MAPPED = f"""
import socket
with socket.create_connection(("::ffff:{addresses.FIRST_RECEIVER}", 25), timeout=30):
    print("connected")
"""
MPTCP = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as mptcp:
    mptcp.settimeout(30)
    mptcp.connect(("{addresses.FIRST_RECEIVER}", 25))
"""


def test_sendmails_own_user_reaches_a_receiver(lab: Lab) -> None:
    """Otherwise the refusals below would prove nothing."""
    assert lab.run("runuser", "-u", "smmta", "--", "python3", "-c", CONNECT).stdout == "220\n"


@pytest.mark.parametrize("user", ["root", "nobody", "smmsp", "opendkim", "daemon", "www-data"])
def test_nobody_else_does_and_each_try_is_counted(lab: Lab, user: str) -> None:
    before = refused_so_far(lab, chain="smtp")

    tried = lab.run("runuser", "-u", user, "--", "python3", "-c", CONNECT)

    assert "ConnectionRefusedError" in tried.stderr
    assert refused_so_far(lab, chain="smtp") == before + 1


@pytest.mark.parametrize(
    "command",
    [
        ["python3", "-c", MAPPED],
        ["python3", "-c", MPTCP],
        ["unshare", "--user", "--map-root-user", "python3", "-c", CONNECT],
    ],
    ids=["mapped IPv4", "multipath TCP", "root of a user namespace"],
)
def test_nobody_gets_around_it(lab: Lab, command: list[str]) -> None:
    before = refused_so_far(lab, chain="smtp")

    tried = lab.run("runuser", "-u", "nobody", "--", *command)

    assert tried.returncode != 0
    assert tried.stdout == ""
    assert refused_so_far(lab, chain="smtp") > before
