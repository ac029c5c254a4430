"""Recipients in every notation that ever made a mail server send something where it should not.

The forms are those of the relay testers (nmap's smtp-open-relay, abuse.net, DSBL's relaytest) and
of RFC 5321 and RFC 1123. Only this host can connect, and it may write to anyone; what must not work
is a recipient that looks like one thing and goes to another.
"""

import uuid
from dataclasses import dataclass

import pytest

from lab.internet.verdict import Verdict
from lab.lab import Lab
from tests.lab.attacks.host import DOMAIN, OWN, MailLog, conversation, queue_id, report_about

pytestmark = pytest.mark.lab

FIRST = "mx.example.net"

REFUSED = (
    # percent hack
    f"victim%example.net@{DOMAIN}",
    f"victim%25example.net@{DOMAIN}",
    f"a%b%example.net@{DOMAIN}",
    "victim%example.net@localhost",
    "victim%example.net@[127.0.0.1]",
    "victim%example.net@[10.40.0.101]",
    "victim%example.net",
    # bang path
    "example.net!victim",
    f"example.net!victim@{DOMAIN}",
    "example.net!victim@[127.0.0.1]",
    "example.org!example.net!victim",
    f"{DOMAIN}!example.net!victim",
    # quoted local part
    '"victim@example.net"',
    '"victim%example.net"',
    f'"victim@example.net"@{DOMAIN}',
    f'"victim\\"@example.net"@{DOMAIN}',
    '"victim@example.net"@[127.0.0.1]',
    # source route
    f"@{DOMAIN}:victim@example.net",
    "@example.org:victim@example.net",
    "@[127.0.0.1]:victim@example.net",
    f"@example.org,@{DOMAIN}:victim@example.net",
    "@:victim@example.net",
    # two domains
    f"victim@example.net@{DOMAIN}",
    "victim@example.net@[127.0.0.1]",
    "victim@example.net@example.org",
    f"victim@{DOMAIN}@example.net",
    "victim@example.net,other@example.net",
    # address literal
    "victim@[198.51.100.26]",
    "victim@[127.0.0.1]",
    "victim@[169.254.169.254]",
    "victim@[IPv6:::1]",
    # DECnet, port
    "example.net::victim",
    "victim@example.net:25",
    # no or half a domain, no local part
    "victim@",
    "@example.net",
    "victim@.example.net",
    # program, file, list
    "|/bin/touch /var/lib/sendmail/attacked",
    '"|/bin/touch /var/lib/sendmail/attacked"',
    f'"|/bin/touch /var/lib/sendmail/attacked"@{DOMAIN}',
    "/var/lib/sendmail/attacked",
    f'"/var/lib/sendmail/attacked"@{DOMAIN}',
    ":include:/etc/passwd",
    f'":include:/etc/passwd"@{DOMAIN}',
)

# What stands before another domain is that domain's business; what has ours is the postmaster's.
DELIVERED = {
    "victim@example.net": "victim@example.net",
    "victim@example.net.": "victim@example.net",
    "victim%example.org@example.net": "victim%example.org@example.net",
    "example.org!victim@example.net": "example.org!victim@example.net",
    '"victim@example.org"@example.net': '"victim@example.org"@example.net',
    "-odq@example.net": "-odq@example.net",
    "victim": "postmaster@example.net",
    f"victim@{DOMAIN}.": "postmaster@example.net",
    "victim@localhost": "postmaster@example.net",
    "\\victim": "postmaster@example.net",
    "root+/var/lib/sendmail/attacked": "postmaster@example.net",
    "victim/example.net": "postmaster@example.net",
    "MAILER-DAEMON": "postmaster@example.net",
}

# A domain that nobody has: the postmaster gets a report.
BOUNCED = ("victim@127.0.0.1", "victim@198.51.100.26", "victim@example.net.uucp")


@dataclass(frozen=True)
class Fate:
    """What became of a message to one recipient."""

    reply: str
    """To RCPT, or to the message when RCPT was allowed."""
    verdicts: list[Verdict]
    """The receivers' that got it."""


@pytest.fixture(scope="module")
def fates(lab: Lab) -> dict[str, Fate]:
    """What became of a message to each form, when all of them have ended."""
    log = MailLog(lab)
    subjects = {form: uuid.uuid4().hex for form in (*REFUSED, *DELIVERED, *BOUNCED)}
    replies = {}
    for form, subject in subjects.items():
        with conversation(lab) as talk:
            talk.command(f"MAIL FROM:<{OWN}>")
            replies[form] = talk.command(f"RCPT TO:<{form}>")
            if replies[form].startswith("2"):
                talk.command("DATA")
                replies[form] = talk.message(f"From: {OWN}\nSubject: {subject}\n\nx")
    log.wait_for_end_of([queue_id(reply) for reply in replies.values() if reply[0] == "2"])
    for form in DELIVERED:
        lab.wait_for(subject=subjects[form], receivers=[FIRST])
    got = lab.verdicts()
    return {
        form: Fate(replies[form], [v for v in got if v.subject == subject])
        for form, subject in subjects.items()
    }


@pytest.mark.parametrize("form", REFUSED)
def test_a_recipient_that_is_no_plain_mailbox_is_refused(fates: dict[str, Fate], form: str) -> None:
    assert fates[form].reply.startswith(("550 5.", "553 5."))
    assert fates[form].verdicts == []


@pytest.mark.parametrize("form", DELIVERED)
def test_a_recipient_gets_the_mail_where_its_domain_says_and_nowhere_else(
    fates: dict[str, Fate], form: str
) -> None:
    assert [(v.receiver, v.recipients) for v in fates[form].verdicts] == [
        (FIRST, (DELIVERED[form],))
    ]


@pytest.mark.parametrize("form", BOUNCED)
def test_a_recipient_in_a_domain_that_nobody_has_is_reported_to_the_postmaster(
    lab: Lab, fates: dict[str, Fate], form: str
) -> None:
    assert fates[form].reply.startswith("250 ")
    assert fates[form].verdicts == []
    assert form in report_about(lab, queue_id(fates[form].reply))


def test_no_recipient_ran_a_program_or_wrote_a_file(lab: Lab, fates: dict[str, Fate]) -> None:
    assert fates
    assert lab.run("find", "/var/lib/sendmail", "-name", "attacked*").stdout == ""


def test_every_refused_recipient_is_a_line_in_the_log(lab: Lab, mail_log: MailLog) -> None:
    with conversation(lab) as talk:
        talk.command(f"MAIL FROM:<{OWN}>")
        for form in REFUSED:
            assert talk.command(f"RCPT TO:<{form}>").startswith("55")

    by_our_rules = r"ruleset=check_rcpt, .*reject=550 5\.1\.[23]"
    by_its_grammar = r"\.\.\. (Invalid (route|host)|Colon illegal|(Hostname|User address) required)"
    refusals = rf"{by_our_rules}|{by_its_grammar}"
    assert mail_log.count(refusals, expected=len(REFUSED)) == len(REFUSED)


def test_nobody_is_a_relay_for_a_foreign_sender(lab: Lab, mail_log: MailLog) -> None:
    senders = (
        "spam@bank.example",
        f"spam%bank.example@{DOMAIN}",
        f"bank.example!spam@{DOMAIN}",
        f'"spam@bank.example"@{DOMAIN}',
        f"@{DOMAIN}:spam@bank.example",
        f"spam@sub.{DOMAIN}",
        f"spam@{DOMAIN}.bank.example",
        "spam@[127.0.0.1]",
        f"|/bin/touch@{DOMAIN}",
    )
    with conversation(lab) as talk:
        for sender in senders:
            reply = talk.command(f"MAIL FROM:<{sender}>")
            assert reply.startswith(("550 5.", "553 5.")), f"{sender}: {reply}"

    assert mail_log.count(r"check_mail, .*reject=55", expected=len(senders)) == len(senders)


def test_a_sender_on_this_host_leaves_in_the_sending_domain(lab: Lab) -> None:
    subject = uuid.uuid4().hex
    with conversation(lab) as talk:
        talk.begin("someone@example.net", sender="cron@localhost")
        assert talk.message(f"From: {OWN}\nSubject: {subject}\n\nx").startswith("250 ")

    (verdict,) = lab.wait_for(subject=subject, receivers=[FIRST])
    assert verdict.mail_from == f"cron@{DOMAIN}"
