"""SMTP smuggling: a message that hides a second one from whoever signs and checks the first.

CVE-2023-51764, -51765, -51766; the end-of-data variants are those of SEC Consult ("SMTP Smuggling",
2023) and of its and Hanno Böck's scanners, with the rest of their combinations. There are two
promises: our MTA takes none of them for an end, and passes none on that a receiver could take for
one.
"""

import uuid

import pytest

from lab.lab import Lab
from tests.lab.attacks.host import OWN, MailLog, conversation, subjects_that_arrived
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

RECIPIENT = "victim@example.net"
_LINE_ENDS = (b"\r\n", b"\n", b"\r")

# The bytes around the dot, and what the log says of them.
BARE = (
    *(
        before + b"." + after
        for before in _LINE_ENDS
        for after in _LINE_ENDS
        if (before, after) != (b"\r\n", b"\r\n")
    ),
    b"\n\n.\r\n",
    b"\r\n\r.\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\0\n",
)
NUL = (b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\r\n", b"\r\n\0.\0\r\n")
# No line end in RFC 5321, and none to anybody else we know: these are a message's text.
TEXT = (
    b"\r\n .\r\n",
    b"\r\n. \r\n",
    b"\r\n.\x0b\r\n",
    b"\r\n.\x0c\r\n",
    b"\r\n.\x85\r\n",
    b"\r\n\x1a\r\n",
)


def smuggle(lab: Lab, end: bytes, *, port: int = 25) -> tuple[list[str], str, str]:
    """Send a message whose text has `end` and a whole second message after it.

    Returns the replies after DATA's, and both messages' subjects.
    """
    outer, inner = uuid.uuid4().hex, uuid.uuid4().hex
    first = f"From: {OWN}\r\nTo: {RECIPIENT}\r\nSubject: {outer}\r\n\r\nfirst"
    second = (
        f"MAIL FROM:<{OWN}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n"
        f"From: {OWN}\r\nTo: {RECIPIENT}\r\nSubject: {inner}\r\n\r\nsecond\r\n.\r\nQUIT\r\n"
    )
    with conversation(lab, port=port) as talk:
        talk.begin(RECIPIENT)
        talk.send(first.encode() + end + second.encode())
        return talk.replies(), outer, inner


@pytest.mark.parametrize("end", [*BARE, *NUL], ids=repr)
def test_a_false_end_of_data_ends_nothing_and_is_refused(
    lab: Lab, mail_log: MailLog, end: bytes
) -> None:
    replies, outer, inner = smuggle(lab, end)

    assert replies[0].startswith(("421 4.5.0 Bare ", "554 5.6.1 NUL byte not allowed"))
    assert not any("accepted for delivery" in reply for reply in replies)
    refused = r"info=Bare \w+.* not allowed|stat=NUL byte not allowed"
    assert mail_log.count(refused, expected=1) == 1
    assert not {outer, inner} & {*subjects_that_arrived(lab)}


@pytest.mark.parametrize("end", TEXT, ids=repr)
def test_what_only_looks_like_an_end_of_data_arrives_as_text_of_one_message(
    lab: Lab, end: bytes
) -> None:
    replies, outer, inner = smuggle(lab, end)

    assert [reply[:9] for reply in replies] == ["250 2.0.0", "221 2.0.0"]
    (verdict,) = lab.wait_for(subject=outer, receivers=["mx.example.net"])
    assert verdict.dkim == "pass"
    assert verdict.path is not None
    assert f"Subject: {inner}\r\n".encode() in verdict.path.read_bytes()
    assert inner not in subjects_that_arrived(lab)


def test_a_dot_alone_on_a_line_is_doubled_for_the_receiver(lab: Lab) -> None:
    replies, outer, inner = smuggle(lab, b"\r\n..\r\n")

    assert [reply[:9] for reply in replies] == ["250 2.0.0", "221 2.0.0"]
    for verdict in lab.wait_for(subject=outer, receivers=["mx.example.net"]):
        assert verdict.path is not None
        assert b"\r\nfirst\r\n.\r\nMAIL FROM:" in verdict.path.read_bytes()
    assert inner not in subjects_that_arrived(lab)


# On the submission port, where the `sendmail' command delivers, a bare CR becomes a space: it must
# not hold up the submission queue (sendmail.mc).
@pytest.mark.parametrize("end", [b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\r\r\n"], ids=repr)
def test_a_bare_cr_on_the_submission_port_ends_nothing_and_is_replaced(
    lab: Lab, mail_log: MailLog, end: bytes
) -> None:
    replies, outer, inner = smuggle(lab, end, port=587)

    assert [reply[:9] for reply in replies] == ["250 2.0.0", "221 2.0.0"]
    (verdict,) = lab.wait_for(subject=outer, receivers=["mx.example.net"])
    assert verdict.path is not None
    assert b"\r" not in verdict.path.read_bytes().replace(b"\r\n", b"")
    assert mail_log.count(r"info=Bare carriage return .* status=replaced", expected=1) == 1
    assert inner not in subjects_that_arrived(lab)


@pytest.mark.parametrize("end", ["\r\n.\r\n", "\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n"], ids=repr)
def test_the_sendmail_command_passes_no_false_end_on(lab: Lab, end: str) -> None:
    outer, inner = uuid.uuid4().hex, uuid.uuid4().hex
    second = end.replace(".", f"MAIL FROM:<{OWN}>\nRCPT TO:<{RECIPIENT}>\nDATA\nSubject: {inner}\n")
    lab.submit(
        f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {outer}\n\nfirst{end}{second}{end}".encode(),
        sender=OWN,
    )

    (verdict,) = lab.wait_for(subject=outer, receivers=["mx.example.net"])
    assert verdict.dkim == "pass"
    assert verdict.path is not None
    text = verdict.path.read_bytes()
    assert f"Subject: {inner}".encode() in text
    assert b"\r" not in text.replace(b"\r\n", b"")
    assert inner not in subjects_that_arrived(lab)


def test_a_message_with_a_bare_cr_does_not_hold_up_the_submission_queue(lab: Lab) -> None:
    subjects = [uuid.uuid4().hex for _ in range(3)]
    lab.run("systemctl", "stop", "sendmail")
    try:
        for subject, body in zip(subjects, ("x\n", "a\rb\n", "x\n"), strict=True):
            lab.submit(
                f"From: {OWN}\nTo: {RECIPIENT}\nSubject: {subject}\n\n{body}".encode(), sender=OWN
            )
    finally:
        lab.run("systemctl", "start", "sendmail")

    def nothing_waits() -> bool:
        lab.run("sendmail-msp", "-Ac", "-q")
        return "is empty" in lab.run("mailq", "-Ac").stdout

    eventually(nothing_waits, explain=lambda: lab.run("mailq", "-Ac").stdout)

    for subject in subjects:
        lab.wait_for(subject=subject, receivers=["mx.example.net"])


@pytest.mark.parametrize("too_early", ["greeting", "reply to EHLO", "354"])
def test_commands_that_do_not_wait_for_an_answer_are_refused(
    lab: Lab, mail_log: MailLog, too_early: str
) -> None:
    subject = uuid.uuid4().hex
    message = f"From: {OWN}\r\nSubject: {subject}\r\n\r\nx\r\n.\r\n"
    rest = f"MAIL FROM:<{OWN}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n{message}QUIT\r\n"
    hello = "EHLO app" if too_early == "354" else ""
    with conversation(lab, hello=hello, greeted=too_early != "greeting") as talk:
        talk.send(("" if hello else "EHLO app\r\n").encode() + rest.encode())
        assert any(reply.startswith("554 5.5.0 SMTP protocol error") for reply in talk.replies())

    assert mail_log.count("due to traffic before response", expected=1) == 1
    assert subject not in subjects_that_arrived(lab)
