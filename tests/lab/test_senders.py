"""Which senders the deployed host refuses, and which address fields survive its sendmail."""

import json
import uuid

import pytest

from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.attacks.host import MailLog

pytestmark = pytest.mark.lab

# RFC 5322 section 3.4 allows a sender much that a reader would be misled by.
DOMAIN = "mail.example.com"
OWN = f"hello@{DOMAIN}"

# By SMTP, where nothing but the MTA sees the message; prints the last reply's code and text.
SUBMIT = """
import json, smtplib, sys
message = json.loads(sys.argv[1])
with smtplib.SMTP("127.0.0.1", 587) as smtp:
    try:
        smtp.sendmail(message["sender"], ["someone@example.net"], message["text"].encode())
        print(250)
    except smtplib.SMTPResponseException as refusal:
        print(refusal.smtp_code, refusal.smtp_error.decode())
"""


def submit(lab: Lab, fields: str, subject: str = "x") -> str:
    text = f"{fields}Subject: {subject}\r\n\r\nx\r\n"
    message = json.dumps({"sender": OWN, "text": text})
    return lab.run("python3", "-c", SUBMIT, message).stdout


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "From: \r\n",
        "From: <>\r\n",
        "From: root\r\n",
        "From: root@localhost\r\n",
        f"From: {OWN}, x@bank.example\r\n",
        f"From: x@bank.example, {OWN}\r\n",
        f"From: Team: {OWN};\r\n",
        f"From: {OWN} <x@bank.example>\r\n",
        f"From: ({OWN}) x@bank.example\r\n",
        f"From: <x@bank.example> <{OWN}>\r\n",
        f"From: <x@bank.example> {OWN}\r\n",
        f"From: <@{DOMAIN}:x@bank.example>\r\n",
        f"From: x@sub.{DOMAIN}\r\n",
        f"From: x@not-{DOMAIN}\r\n",
        f"From: x@{DOMAIN}.bank.example\r\n",
        "From:\r\n x@bank.example\r\n",
        "From : x@bank.example\r\n",
        f'From: "unbalanced <{OWN}>\r\n',
        f"From: unbalanced <{OWN}\r\n",
        f"From: Two Words {OWN}\r\n",
    ],
)
def test_a_from_field_that_is_not_one_address_of_ours_is_refused(lab: Lab, fields: str) -> None:
    assert submit(lab, f"{fields}To: someone@example.net\r\n").startswith(
        ("550 5.7.1", "554 5.7.1")
    )


def test_every_refused_sender_field_is_a_line_in_the_log(lab: Lab) -> None:
    log = MailLog(lab)
    for fields in (
        "From: x@bank.example\r\n",
        f"From: {OWN}\r\nFrom: x@bank.example\r\n",
        f"From: {OWN}\r\nSender: x@bank.example\r\n",
        f"From: {OWN}\r\nResent-From: x@bank.example\r\n",
    ):
        assert submit(lab, fields).startswith("55")

    assert log.count(r"ruleset=Check(From|Ours), .*reject=550 5\.7\.1", expected=4) == 4


# Not what DMARC looks at, but what readers show: "x@bank.example on behalf of ..." (RFC 5322
# section 3.6.2). Nothing on this host sends or resends for anybody else.
@pytest.mark.parametrize("name", ["Sender", "Resent-From", "Resent-Sender"])
@pytest.mark.parametrize(
    "value",
    [
        "x@bank.example",
        f"{OWN} <x@bank.example>",
        f"{OWN}, x@bank.example",
        f"<x@bank.example> {OWN}",
        f"x@sub.{DOMAIN}",
        "root",
    ],
)
def test_no_other_sender_field_may_name_anyone_else(lab: Lab, name: str, value: str) -> None:
    fields = f"From: {OWN}\r\n{name}: {value}\r\nTo: someone@example.net\r\n"

    assert submit(lab, fields).startswith(("550 5.7.1", "554 5.7.1"))


@pytest.mark.parametrize("name", ["Sender", "Resent-From", "Resent-Sender"])
def test_another_sender_field_may_name_an_address_of_ours(lab: Lab, name: str) -> None:
    subject = uuid.uuid4().hex
    fields = f"{name}: The Application <app@{DOMAIN}>\r\nFrom: {OWN}\r\nTo: a@example.net\r\n"

    assert submit(lab, fields, subject) == "250\n"

    (verdict,) = lab.wait_for(subject=subject, receivers=["mx.example.net"])
    assert faults(verdict) == {}


def test_the_senders_of_an_attached_message_are_nobodys_business(lab: Lab) -> None:
    subject = uuid.uuid4().hex
    fields = (
        f"From: {OWN}\r\nTo: a@example.net\r\nMIME-Version: 1.0\r\nSubject: {subject}\r\n"
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        "Content-Type: message/rfc822\r\n\r\n"
        "From: x@bank.example\r\nSender: y@bank.example\r\n\r\nx\r\n--b--\r\n"
    )

    assert submit(lab, fields) == "250\n"

    (verdict,) = lab.wait_for(subject=subject, receivers=["mx.example.net"])
    assert faults(verdict) == {}


@pytest.mark.parametrize(
    "fields",
    [
        f"From: {OWN}\r\nTo: a@example.net,b@example.net,c@example.net\r\n",
        f'From: "Doe, J." <{OWN}>\r\nTo: "X, Y" <a@example.net>,  B. B. <b@example.net>\r\n',
        f"From: {OWN} (a comment)\r\nTo: a@example.net (a (b, c) d),b@example.net\r\n",
        f"From: {OWN}\r\nTo: someone, a@example.net\r\n",
        f"From: {OWN}\r\nTo: a@example.net,, b@example.net, \r\n",
        f"From: {OWN}\r\nTo: <@relay.example:a@example.net>\r\n",
        f"From: {OWN}\r\nTo: undisclosed-recipients:;\r\n",
        f"From: App<{OWN}>\r\nReply-To: a@bank.example,b@bank.example\r\nTo: a@example.net\r\n",
    ],
)
def test_address_fields_that_sendmail_writes_anew_still_verify(lab: Lab, fields: str) -> None:
    subject = uuid.uuid4().hex

    assert submit(lab, fields, subject) == "250\n"

    (verdict,) = lab.wait_for(subject=subject, receivers=["mx.example.net"])
    assert faults(verdict) == {}
