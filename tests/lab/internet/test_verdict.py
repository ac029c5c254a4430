"""Verdicts: every check by itself, in words a person understands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.internet.verdict import UNKNOWN, Verdict, faults, passes, table

GOOD = Verdict(
    receiver="mx.example.net",
    message_id="<1@mail.example.com>",
    subject="Grüße",
    from_domain="mail.example.com",
    recipients=("someone@example.net", "other@example.net"),
    mail_from="application@mail.example.com",
    address="203.0.113.10",
    helo="mail.example.com",
    reverse_dns="mail.example.com",
    iprev="pass",
    tls="TLSv1.3",
    spf="pass",
    dkim="pass",
    dkim_domain="mail.example.com",
    dmarc="pass",
    accepted=True,
    reply="250 2.0.0 Ok",
    path=Path("/received/1.eml"),
)


def test_a_verdict_survives_json() -> None:
    assert Verdict.from_json(GOOD.to_json()) == GOOD
    refused = replace(GOOD, path=None)
    assert Verdict.from_json(refused.to_json()) == refused


def test_nothing_is_held_against_good_mail() -> None:
    assert passes(GOOD)
    assert faults(GOOD) == {}


@pytest.mark.parametrize(
    ("changes", "check", "sentence"),
    [
        ({"spf": "fail"}, "SPF", "mail.example.com does not let 203.0.113.10 send"),
        ({"spf": "fail", "mail_from": ""}, "SPF", "SPF record of mail.example.com"),
        ({"dkim": "fail"}, "DKIM", "the signature of mail.example.com does not fit"),
        ({"dkim": "none", "dkim_domain": ""}, "DKIM", "no signature was verified"),
        ({"dkim_domain": "example.com"}, "DKIM", "not the domain of From:, mail.example.com"),
        ({"dmarc": "none"}, "DMARC", "publishes no DMARC policy"),
        ({"dmarc": "fail"}, "DMARC", "neither SPF nor DKIM vouches"),
        ({"iprev": "fail", "reverse_dns": ""}, "reverse DNS", "no confirmed name"),
        ({"iprev": "fail"}, "reverse DNS", "does not resolve to that address"),
        ({"helo": "ip-10-0-0-1.ec2.internal"}, "HELO", "HELO said ip-10-0-0-1.ec2.internal"),
        ({"tls": ""}, "TLS", "unencrypted"),
        ({"accepted": False, "reply": "550 5.7.1 no"}, "delivery", "refused: 550 5.7.1 no"),
    ],
)
def test_each_check_fails_by_itself_and_says_why(
    changes: dict[str, Any], check: str, sentence: str
) -> None:
    verdict = replace(GOOD, **changes)
    assert not passes(verdict)
    assert set(faults(verdict)) == {check}
    assert sentence in faults(verdict)[check]


def test_what_a_receiver_does_not_say_is_neither_good_nor_explained() -> None:
    verdict = replace(GOOD, spf=UNKNOWN, dkim=UNKNOWN, tls=UNKNOWN)
    assert faults(verdict) == dict.fromkeys(("SPF", "DKIM", "TLS"), "The receiver did not say.")


def shown(*verdicts: Verdict) -> str:
    console = Console(width=100, record=True)
    console.print(table(verdicts))
    return console.export_text()


def test_the_table_shows_both_receivers_side_by_side() -> None:
    text = shown(GOOD, replace(GOOD, receiver="mx.example.org", path=Path("/received/2.eml")))
    for expected in (
        *("mx.example.net", "mx.example.org", "Grüße", "203.0.113.10", "TLSv1.3"),
        *("✓ pass (mail.example.com)", "/received/1.eml", "/received/2.eml"),
    ):
        assert expected in text
    assert "✗" not in text


def test_the_table_says_what_failed_and_who_got_nothing() -> None:
    other = replace(GOOD, message_id="<2@mail.example.com>", receiver="mx.example.org", spf="fail")
    text = shown(GOOD, other)
    assert "✗ spf=fail" in text
    assert "not received" in text
