"""What a careless application passes on from a stranger: line ends in names, addresses and headers.

Whoever fills in a web form must not become the author of a header field, a recipient or a command.
"""

import uuid
from collections.abc import Sequence
from email.parser import BytesHeaderParser

import pytest

from lab.internet.verdict import Verdict
from lab.lab import Lab
from tests.lab.attacks.host import (
    DOMAIN,
    OWN,
    MailLog,
    conversation,
    queue_id,
    subjects_that_arrived,
)

pytestmark = pytest.mark.lab

FIRST = "mx.example.net"
RECIPIENT = "victim@example.net"
STRANGER = "stranger@example.net"


def sendmail(lab: Lab, *arguments: str, message: str) -> int:
    """Hand a message to the `sendmail` command; returns its exit status."""
    return lab.run("sendmail", "-oi", *arguments, input=message.encode()).returncode


def arrived(lab: Lab, subject: str) -> Verdict:
    (verdict,) = lab.wait_for(subject=subject, receivers=[FIRST])
    assert [v.recipients for v in lab.verdicts() if v.subject == subject] == [(RECIPIENT,)]
    assert (verdict.dkim, verdict.dmarc) == ("pass", "pass")
    return verdict


def fields(verdict: Verdict) -> Sequence[str]:
    """The names of the header fields as they arrived, in lower case."""
    assert verdict.path is not None
    header = BytesHeaderParser().parsebytes(verdict.path.read_bytes())
    return [name.lower() for name in header]


@pytest.mark.parametrize(
    "name",
    [
        f"App\nBcc: {STRANGER}",
        f"App\r\nBcc: {STRANGER}",
        f'App" <{STRANGER}>, "',
        "App\r\n\r\nBody",
    ],
    ids=repr,
)
def test_a_full_name_adds_no_field_and_no_recipient(lab: Lab, name: str) -> None:
    subject = uuid.uuid4().hex
    message = f"To: {RECIPIENT}\nSubject: {subject}\n\nx\n"

    assert sendmail(lab, "-t", "-f", OWN, "-F", name, message=message) == 0

    verdict = arrived(lab, subject)
    assert "bcc" not in fields(verdict)
    assert verdict.from_domain == DOMAIN
    assert verdict.path is not None
    assert verdict.path.read_bytes().endswith(b"\r\n\r\nx\r\n")


@pytest.mark.parametrize(
    "sender",
    [
        f"{OWN}\r\nBcc: {STRANGER}",
        f"{OWN}\nRCPT TO:<{STRANGER}>",
        f"{OWN}> SIZE=1\r\nRCPT TO:<{STRANGER}",
    ],
    ids=repr,
)
def test_an_envelope_sender_with_a_line_end_is_refused(
    lab: Lab, mail_log: MailLog, sender: str
) -> None:
    subject = uuid.uuid4().hex
    message = f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {subject}\n\nx\n"

    assert sendmail(lab, "-t", "-f", sender, message=message) != 0

    assert mail_log.count("POSSIBLE ATTACK.*newline in string", expected=1) == 1
    assert subject not in subjects_that_arrived(lab)


@pytest.mark.parametrize("separator", ["\r", "\v", "\f", "\x85", "\u2028"], ids=repr)
def test_no_character_but_a_line_end_begins_a_new_field(lab: Lab, separator: str) -> None:
    subject = uuid.uuid4().hex
    message = (
        f"From: {OWN}\nTo: {RECIPIENT}\nX-Name: a{separator}Bcc: {STRANGER}\n"
        f"Subject: {subject}\n\nx\n"
    )

    assert sendmail(lab, "-t", "-f", OWN, message=message) == 0

    assert "bcc" not in fields(arrived(lab, subject))


@pytest.mark.parametrize(
    "extra",
    [
        "From : ceo@bank.example\n",
        "From\t: ceo@bank.example\n",
        "fROM: ceo@bank.example\n",
        " \nFrom: ceo@bank.example\n",
        "X-A: b\n\t\nFrom: ceo@bank.example\n",
    ],
    ids=repr,
)
def test_no_second_from_is_hidden_in_the_header(lab: Lab, extra: str) -> None:
    message = f"From: {OWN}\nTo: {RECIPIENT}\nSubject: x\n{extra}\nx\n"

    assert sendmail(lab, "-t", "-f", OWN, message=message) != 0


@pytest.mark.parametrize(
    "extra",
    [
        "no colon\nFrom: ceo@bank.example\n",
        "\nFrom: ceo@bank.example\n",
        ": x\nFrom: ceo@bank.example\n",
        "Text: x\nFrom: ceo@bank.example\n",  # sendmail's own words for "here begins the body"
        "Message: x\nFrom: ceo@bank.example\n",
    ],
    ids=repr,
)
def test_what_ends_the_header_for_us_ends_it_for_the_receiver(lab: Lab, extra: str) -> None:
    subject = uuid.uuid4().hex
    message = f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {subject}\n{extra}\nx\n"

    assert sendmail(lab, "-t", "-f", OWN, message=message) == 0

    assert fields(arrived(lab, subject)).count("from") == 1


def test_a_mailbox_line_before_the_header_is_no_sender(lab: Lab) -> None:
    subject = uuid.uuid4().hex
    message = (
        f"From ceo@bank.example Mon Jan  1 00:00:00 2024\n"
        f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {subject}\n\nx\n"
    )

    assert sendmail(lab, "-t", "-f", OWN, message=message) == 0

    assert arrived(lab, subject).mail_from == OWN


@pytest.mark.parametrize(
    "command",
    [
        f"MAIL FROM:<{OWN}>\rRCPT TO:<{STRANGER}>",
        f"MAIL FROM:<{OWN}\0>",
        f"MAIL FROM:<{OWN}> BODY=8BITMIME\vRCPT TO:<{STRANGER}>",
        f"MAIL FROM:<{OWN}> X=y",
    ],
    ids=repr,
)
def test_a_command_with_another_one_inside_is_refused(lab: Lab, command: str) -> None:
    with conversation(lab) as talk:
        assert talk.command(command)[0] in "45"
        assert talk.command("DATA")[:4] in ("503 ", "")  # "": it has hung up


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_nul_byte_is_refused_and_the_postmaster_told(
    lab: Lab, mail_log: MailLog, where: str
) -> None:
    extra = {"header": "X-Name: a\0b\n\nx\n", "body": "\na\0b\n"}[where]
    subject = uuid.uuid4().hex
    message = f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {subject}\n{extra}"

    told = lab.run("sendmail", "-oi", "-t", "-f", OWN, input=message.encode())

    assert "NUL byte not allowed" in told.stdout + told.stderr
    assert mail_log.count("DSN: NUL byte not allowed", expected=1) == 1
    assert subject not in subjects_that_arrived(lab)


def test_the_null_sender_may_send_only_under_our_name(lab: Lab) -> None:
    with conversation(lab) as talk:
        talk.begin(RECIPIENT, sender="")
        refused = talk.message(f"From: ceo@bank.example\nTo: {RECIPIENT}\nSubject: x\n\nx")
    assert refused.startswith("550 5.7.1 ")

    subject = uuid.uuid4().hex
    with conversation(lab) as talk:
        talk.begin(RECIPIENT, sender="")
        queue_id(talk.message(f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {subject}\n\nx"))
    verdict = arrived(lab, subject)
    assert (verdict.mail_from, verdict.spf, verdict.from_domain) == ("", "pass", DOMAIN)
