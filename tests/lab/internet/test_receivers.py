"""What the receivers read out of headers and logs."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.internet.receivers.inbox import (
    Inbox,
    authentication_results,
    from_domain,
    parse_headers,
)
from lab.internet.receivers.second import parse_delivered, parse_refusals
from tests.lab.internet.test_verdict import GOOD

DELIVERED = b"""\
Return-Path: <application@mail.example.com>
Delivered-To: inbox@example.org
Authentication-Results: mx.example.org; dmarc=pass (p=reject dis=none) header.from=mail.example.com
Authentication-Results: mx.example.org;
\tdkim=fail reason="key not found in DNS" header.d=mail.example.com header.i=@mail.example.com header.a=rsa-sha256 header.s=s1 header.b=EhO9QezX;
\tdkim-atps=neutral
Authentication-Results: mx.example.org; spf=pass (sender SPF authorized) smtp.mailfrom=mail.example.com (client-ip=203.0.113.10; helo=mail.example.com; envelope-from=application@mail.example.com; receiver=example.org)
X-Envelope-To: one@example.org
X-Envelope-To: two@example.org
Received: from mail.example.com (mail.example.com [203.0.113.10])
\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)
\t key-exchange X25519MLKEM768)
\t(No client certificate requested)
\tby mx.example.org (Postfix) with ESMTPS id 4915A272071
\tfor <one@example.org>; Tue, 24 Nov 2026 20:35:55 +0000 (UTC)
Received: from localhost (localhost [127.0.0.1]) by mail.example.com; Tue, 24 Nov 2026 20:35:54 +0000
Authentication-Results: mail.example.com; spf=fail; iprev=fail
From: Application <application@mail.example.com>
Message-ID: <1@mail.example.com>
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=

Body
"""  # noqa: E501 - as they were received


def test_what_postfix_and_its_filters_noted_becomes_a_verdict() -> None:
    verdict = parse_delivered(parse_headers(DELIVERED), "mx.example.org")
    assert verdict.recipients == ("one@example.org", "two@example.org")
    assert verdict.mail_from == "application@mail.example.com"
    assert (verdict.address, verdict.helo) == ("203.0.113.10", "mail.example.com")
    assert (verdict.reverse_dns, verdict.iprev) == ("mail.example.com", "pass")
    assert verdict.tls == "TLSv1.3"
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("pass", "fail", "pass")
    assert verdict.dkim_domain == verdict.from_domain == "mail.example.com"
    assert (verdict.message_id, verdict.subject) == ("<1@mail.example.com>", "Grüße")


def test_an_unconfirmed_name_and_plain_text_are_noticed() -> None:
    message = (
        b"Received: from mail.example.com (unknown [203.0.113.10])\n"
        b"\tby mx.example.org (Postfix) with ESMTP id 1\n\n"
    )
    verdict = parse_delivered(parse_headers(message), "mx.example.org")
    assert (verdict.reverse_dns, verdict.iprev, verdict.tls) == ("", "fail", "")
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("none", "none", "none")


def test_a_foreign_received_header_is_not_taken_for_postfix_s() -> None:
    with pytest.raises(ValueError, match="Not a Received header"):
        parse_delivered(parse_headers(b"Received: by something else\n\n"), "mx.example.org")


def test_a_sender_s_own_results_do_not_count() -> None:
    headers = parse_headers(DELIVERED)
    assert authentication_results(headers, "mail.example.com")["spf"]["result"] == "fail"
    assert "iprev" not in authentication_results(headers, "mx.example.org")


def test_one_good_signature_is_enough_among_several() -> None:
    headers = parse_headers(
        b"Authentication-Results: mx; dkim=fail header.d=a.example; dkim=pass header.d=b.example;\n"
        b" dkim=fail header.d=c.example\n\n"
    )
    results = authentication_results(headers, "mx")
    assert results["dkim"] == {"result": "pass", "header.d": "b.example"}


REFUSED = """\
Nov 24 20:35:55 mx postfix/smtpd[3317]: connect from mail.example.com[203.0.113.10]
Nov 24 20:35:55 mx postfix/cleanup[3366]: 4915A272071: message-id=<1@mail.example.com>
Nov 24 20:35:55 mx postfix/cleanup[3366]: 4915A272071: milter-reject: END-OF-MESSAGE from \
mail.example.com[203.0.113.10]: 5.7.1 rejected by DMARC policy for mail.example.com; \
from=<application@mail.example.com> to=<someone@example.org> proto=ESMTP helo=<mail.example.com>
"""


def test_a_refused_message_is_known_by_its_id() -> None:
    (verdict,) = parse_refusals(REFUSED, {}, "mx.example.org")
    assert verdict.message_id == "<1@mail.example.com>"
    assert verdict.reply == "550 5.7.1 rejected by DMARC policy for mail.example.com"
    assert (verdict.accepted, verdict.dmarc, verdict.path) == (False, "fail", None)
    assert (verdict.address, verdict.helo) == ("203.0.113.10", "mail.example.com")
    assert verdict.from_domain == "mail.example.com"
    assert verdict.recipients == ("someone@example.org",)


def test_a_refusal_is_understood_when_its_lines_come_in_two_readings() -> None:
    first, second = REFUSED.splitlines()[:2], REFUSED.splitlines()[2:]
    known: dict[str, str] = {}
    assert list(parse_refusals("\n".join(first), known, "mx.example.org")) == []
    (verdict,) = parse_refusals("\n".join(second), known, "mx.example.org")
    assert verdict.message_id == "<1@mail.example.com>"


def test_raw_utf_8_in_a_header_is_read() -> None:
    headers = parse_headers("Subject: Grüße\r\nFrom: <a@b.example>\r\n\r\nBody".encode())
    assert str(headers["Subject"]) == "Grüße"
    assert from_domain(headers) == "b.example"


def test_a_message_without_from_has_no_domain() -> None:
    assert from_domain(parse_headers(b"Subject: x\n\n")) == ""


def test_an_inbox_gives_verdicts_in_order_and_starts_empty(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    first = inbox.add(GOOD, b"message")
    second = inbox.add(GOOD, None)
    assert first.path is not None
    assert first.path.read_bytes() == b"message"
    assert Inbox(tmp_path / "inbox").verdicts() == [first, second]
    inbox.empty()
    assert inbox.verdicts() == []
    assert list((tmp_path / "inbox").iterdir()) == []
    third = inbox.add(replace(GOOD, subject="third"), None)
    assert inbox.verdicts() == [third]
