"""Somebody who has a shell on the host, and no rights."""

import subprocess
import uuid
from collections.abc import Iterator

import pytest

from lab.lab import Lab
from tests.lab.attacks.host import (
    DOMAIN,
    OWN,
    MailLog,
    subjects_that_arrived,
    wait_until_idle,
)
from tests.lab.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.lab

FIRST = "mx.example.net"
HOME = "/home/mallory"
CLIENT_QUEUE = "/var/spool/queue/mqueue-client"
TREES = ("/etc/mail", "/etc/aliases", "/var/lib/sendmail", "/var/spool/queue", "/run")
CONNECT = """
import socket, sys
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""

# A configuration of one's own: has the signer sign, runs programs.
OWN_CONFIGURATION = f"""
V10/Berkeley
O QueueDirectory={HOME}
O RunAsUser=smmsp
O InputMailFilters=opendkim
Xopendkim, S=local:/run/opendkim/socket, F=R
Mlocal, P=/bin/touch, F=lsDFMAw5:/|@qPSXfmnz9, A=touch {HOME}/ran
Mprog, P=/bin/touch, F=lsDFMoqeu9, A=touch {HOME}/ran
"""


class Mallory:
    """An unprivileged user of the host."""

    def __init__(self, lab: Lab) -> None:
        """Act on the host of `lab`, where the user exists."""
        self._lab = lab

    def run(
        self, *argv: str, message: str = "", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` as this user, in its home."""
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        return self._lab.run(
            *("runuser", "-u", "mallory", "--", "env", f"--chdir={HOME}", *variables, *argv),
            input=message.encode(),
            timeout=PATIENCE_SECONDS,
        )


@pytest.fixture(scope="module")
def mallory(lab: Lab) -> Iterator[Mallory]:
    """The user, with a configuration, an alias file and a .forward of its own."""
    assert lab.run("useradd", "--create-home", "mallory").returncode == 0
    try:
        user = Mallory(lab)
        for name, text in {
            "own.cf": OWN_CONFIGURATION,
            "aliases": f'root: "|/bin/touch {HOME}/ran"\n',
            ".forward": f'"|/bin/touch {HOME}/ran"\n{HOME}/ran\nstranger@example.net\n',
        }.items():
            assert user.run("tee", name, message=text).returncode == 0
        yield user
    finally:
        lab.run("userdel", "--remove", "mallory")


@pytest.fixture
def waiting(lab: Lab) -> Iterator[str]:
    """The data file of somebody's message in the submission queue, while the MTA is away."""
    lab.run("systemctl", "stop", "sendmail", "sendmail-client")
    subject = uuid.uuid4().hex
    try:
        lab.submit(
            f"From: {OWN}\nTo: friend@example.net\nSubject: {subject}\n\nsecret\n".encode(),
            sender=OWN,
        )
        found = lab.run("grep", "--recursive", "--files-with-matches", "secret", CLIENT_QUEUE)
        (file,) = found.stdout.split()
        yield file
    finally:
        lab.run("systemctl", "start", "sendmail", "sendmail-client")
    lab.run("sendmail-msp", "-Ac", "-q")
    lab.wait_for(subject=subject, receivers=[FIRST])  # untouched by what was tried


def listing(lab: Lab) -> str:
    """Every file that mail depends on, with owner, mode, size and time of change."""
    what = ("-type", "f", "-not", "-name", "sm-client.st", "-printf", "%p %u:%g %m %s %T@\\n")
    return lab.run("find", *TREES, "-xdev", "-path", "/run/systemd", "-prune", "-o", *what).stdout


@pytest.mark.parametrize(
    "path",
    [
        "/run/dkim-key/private.pem",
        "/var/log/mail.log",
        "/var/log/postern/mail.log",
        "/var/log/postern/report.log",
        "/var/spool/queue/mqueue",
        "/var/spool/queue/mqueue-deferred",
        CLIENT_QUEUE,
        "/var/lib/sendmail/dead.letter",
        "/var/lib/cloud/instance/user-data.txt",
        "/var/log/cloud-init-output.log",
    ],
)
def test_nothing_of_value_is_readable(lab: Lab, mallory: Mallory, path: str) -> None:
    # The report is there within the first minute.
    eventually(lambda: lab.run("test", "-e", path).returncode == 0)
    assert mallory.run("test", "-r", path).returncode != 0
    assert mallory.run("cp", "--recursive", path, f"{HOME}/copy").returncode != 0


@pytest.mark.parametrize("service", ["opendkim", "sendmail", "sendmail-client"])
@pytest.mark.parametrize("file", ["environ", "mem", "fd", "root", "maps"])
def test_no_process_that_knows_something_is_open_to_view(
    lab: Lab, mallory: Mallory, service: str, file: str
) -> None:
    pid = lab.run("systemctl", "show", "--property=MainPID", "--value", service).stdout.strip()

    assert mallory.run("sh", "-c", f"ls /proc/{pid}/{file}/ || cat /proc/{pid}/{file}").stdout == ""
    assert mallory.run("kill", "-0", pid).returncode != 0


def test_the_signer_takes_no_message(mallory: Mallory) -> None:
    refused = mallory.run("python3", "-c", CONNECT, "/run/opendkim/socket")

    assert "PermissionError" in refused.stderr


def test_a_waiting_message_can_not_be_read_replaced_or_removed(
    mallory: Mallory, waiting: str
) -> None:
    for attempt in (
        f"cat {waiting}",
        f"rm -f {waiting}",
        f"ln {waiting} {HOME}/link",
        f"ln -s {waiting} {HOME}/symlink && cat {HOME}/symlink",
        f"mv {HOME}/own.cf {waiting}",
        f"touch {CLIENT_QUEUE}/qf6AONEYm2002972",
        f"ls {CLIENT_QUEUE}",
        f"sendmail -oQ{HOME} -oQ{CLIENT_QUEUE} -bp | grep friend",
        "sendmail -Cown.cf -bp | grep friend",
    ):
        assert mallory.run("sh", "-c", attempt).returncode != 0, attempt


def test_who_wrote_to_whom_is_roots_to_see(lab: Lab, mallory: Mallory, waiting: str) -> None:
    assert "friend@example.net" in lab.run("mailq").stdout
    for options in ([], ["-Ac"], ["-Am"], ["-v"], ["-Ac", "-v"]):
        seen = mallory.run("mailq", *options)
        assert "example.net" not in seen.stdout + seen.stderr
        assert waiting.rpartition("/df")[2] not in seen.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["-bi"],
        ["-bi", f"-oA{HOME}/aliases"],
        ["-bd"],
        ["-bd", "-Cown.cf"],
        ["-bH"],
        ["-q"],
        ["-Ac", "-q"],
        ["-Ac", "-qRexample.net"],
        ["-Am", "-q", "-Cown.cf"],
        ["-bs", f"-X{CLIENT_QUEUE}/transcript"],
        ["-bs", "-X/etc/mail/transcript"],
        ["-bt", f"-D{CLIENT_QUEUE}/debug", "-d0.1"],
        ["-bp", "-OQueueDirectory=/etc/mail"],
        ["-t", f"-OQueueDirectory={HOME}"],
        ["-t", "-OLogLevel=0"],
        ["-t", "-OPrivacyOptions="],
        ["-t", f"-OAliasFile={HOME}/aliases"],
        ["-t", "-OForwardPath=$z/.forward"],
        ["-t", "-OMaxMessageSize=0"],
        ["-t", "-ORunAsUser=root"],
        ["-t", "-OStatusFile=/etc/mail/statistics"],
        ["-t", "-OPidFile=/etc/mail/pid"],
        ["-t", "-OTrustedUser=mallory"],
        ["-t", "-Mr=SMTP"],
        ["-t", "-Cown.cf"],
        ["-t", "-C/run/dkim-key/private.pem"],
        ["-v", "-bv", "root"],
        ["-d99.100", "-bv", "root"],
    ],
    ids=" ".join,
)
def test_no_option_of_sendmail_changes_or_tells_anything(
    lab: Lab, mallory: Mallory, options: list[str]
) -> None:
    wait_until_idle(lab)  # mail of earlier tests has files, too
    before = listing(lab)
    subject = uuid.uuid4().hex
    message = f"From: ceo@bank.example\nTo: someone@example.net, root\nSubject: {subject}\n\nx\n"

    told = mallory.run("sendmail", *options, message=message)

    assert "PRIVATE KEY" not in told.stdout + told.stderr
    assert "friend@" not in told.stdout
    arrived = subjects_that_arrived(lab)
    assert listing(lab) == before
    assert subject not in arrived
    assert mallory.run("test", "-e", f"{HOME}/ran").returncode != 0


def test_what_an_administrator_may_do_is_refused_and_logged(
    mallory: Mallory, mail_log: MailLog
) -> None:
    for options in (["-bi"], ["-bd"], ["-bH"]):
        assert mallory.run("sendmail", *options).returncode != 0

    assert mail_log.count(r"user \d+ attempted to ", expected=3) == 3


def test_a_forward_file_forwards_nothing_and_runs_nothing(lab: Lab, mallory: Mallory) -> None:
    subject = uuid.uuid4().hex
    lab.submit(f"From: {OWN}\nTo: mallory\nSubject: {subject}\n\nx\n".encode(), sender=OWN)

    lab.wait_for(subject=subject, receivers=[FIRST])
    got = [v.recipients for v in lab.verdicts() if v.subject == subject]
    assert got == [(lab.environment.postmaster,)]
    assert mallory.run("test", "-e", f"{HOME}/ran").returncode != 0


@pytest.mark.parametrize(
    "recipient",
    [
        f"|{HOME}/own.cf",
        f'"|/bin/touch {HOME}/ran"',
        f"{HOME}/ran",
        f":include:{HOME}/.forward",
        "\\|touch",
    ],
)
def test_no_recipient_is_a_program_a_file_or_a_list(
    mallory: Mallory, mail_log: MailLog, recipient: str
) -> None:
    message = f"From: mallory@{DOMAIN}\nTo: someone@example.net\nSubject: x\n\nx\n"

    refused = mallory.run("sendmail", "-oi", "--", recipient, message=message)

    assert refused.returncode != 0
    assert mail_log.count("reject=550 5.1.3|Cannot mail directly to", expected=1) == 1
    assert mallory.run("test", "-e", f"{HOME}/ran").returncode != 0


@pytest.mark.parametrize(
    "environment",
    [
        {"NAME": "M\nBcc: stranger@example.net"},
        {"USER": "root", "LOGNAME": "root"},
        {"HOSTALIASES": f"{HOME}/own.cf", "LOCALDOMAIN": "bank.example"},
        {"LD_PRELOAD": f"{HOME}/own.cf", "LD_LIBRARY_PATH": HOME},
        {"TZ": f":{HOME}/own.cf", "RES_OPTIONS": "ndots:99"},
        {
            "SENDMAIL": "/bin/false",
            "MAIL": "/etc/mail/access",
            "PATH": f"{HOME}:/usr/sbin:/usr/bin",
        },
    ],
    ids=lambda environment: " ".join(environment),
)
def test_no_environment_variable_changes_who_writes_to_whom(
    lab: Lab, mallory: Mallory, environment: dict[str, str]
) -> None:
    subject = uuid.uuid4().hex
    message = f"To: someone@example.net\nSubject: {subject}\n\nx\n"

    assert (
        mallory.run("sendmail", "-oi", "-t", message=message, environment=environment).returncode
        == 0
    )

    (verdict,) = lab.wait_for(subject=subject, receivers=[FIRST])
    assert (verdict.recipients, verdict.mail_from) == (
        ("someone@example.net",),
        f"mallory@{DOMAIN}",
    )
    assert verdict.path is not None
    assert b"\r\nBcc:" not in verdict.path.read_bytes()
