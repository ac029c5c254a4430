"""`operations/postern-send-test`: a message's fate, from lines that sendmail 8.18.1 logged."""

from typing import Any

import pytest

from tests.user_data.program import program

MESSAGE_ID = "<postern-test-1@mail.example.com>"
SUBMITTED = (
    "6AQ2L4l8003923: from=postern-test@mail.example.com, size=268, class=0, nrcpts=1, "
    f"msgid={MESSAGE_ID}, relay=root@localhost"
)
ACCEPTED = (
    "6AQ2L43r003924: from=<postern-test@mail.example.com>, size=432, class=0, nrcpts=1, "
    f"msgid={MESSAGE_ID}, proto=ESMTP, daemon=MSA, relay=localhost [127.0.0.1]"
)
HANDED_ON = (
    "6AQ2L4l8003923: to=a@x.example, delay=00:00:00, xdelay=00:00:00, mailer=relay, pri=60269, "
    "relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, stat=Sent (6AQ2L43r003924 Message accepted for "
    "delivery)"
)
TLS = (
    "STARTTLS=client, relay=mx.x.example., version=TLSv1.3, verify=OK, "
    "cipher=TLS_AES_256_GCM_SHA384, bits=256/256"
)
TO = (
    "6AQ2L43r003924: to=<a@x.example>, delay=00:00:00, xdelay=00:00:00, mailer=esmtp, pri=60433, "
    "relay=mx.x.example. [198.51.100.27], "
)
SENT = f"{TO}dsn=2.0.0, stat=Sent (2.0.0 Ok: verified, and stored)"
DEFERRED = f"{TO}dsn=4.2.0, reply=450 4.2.1 Mailbox busy, stat=Deferred: 450 4.2.1 Mailbox busy"
BOUNCED = f"{TO}dsn=5.1.1, reply=550 5.1.1 No such user, stat=User unknown"


def follow(*lines: str | tuple[str, str]) -> Any:
    module = program("operations/postern-send-test")
    return module.follow(
        [one if isinstance(one, tuple) else ("1", one) for one in lines], MESSAGE_ID
    )


@pytest.mark.parametrize(
    ("line", "outcome", "words"),
    [
        (SENT, "delivered", "2.0.0 Ok: verified, and stored"),
        (DEFERRED, "deferred", "450 4.2.1 Mailbox busy"),
        (BOUNCED, "bounced", "550 5.1.1 No such user"),
    ],
)
def test_a_fate_is_told_in_the_receivers_words(line: str, outcome: str, words: str) -> None:
    told = follow(SUBMITTED, ACCEPTED, HANDED_ON, ("7", TLS), ("7", line))

    assert (told["outcome"], told["words"]) == (outcome, words)
    assert told["relay"] == "mx.x.example. [198.51.100.27]"
    assert (told["submission_id"], told["queue_id"]) == ("6AQ2L4l8003923", "6AQ2L43r003924")
    assert told["tls"]["version"] == "TLSv1.3"
    assert told["tls"]["verify"] == "OK"


def test_the_last_try_counts() -> None:
    assert follow(SUBMITTED, ACCEPTED, DEFERRED, SENT)["outcome"] == "delivered"


def test_handed_on_within_the_host_is_not_delivered() -> None:
    assert follow(SUBMITTED, ACCEPTED, HANDED_ON)["outcome"] == "unknown"
    assert follow(SUBMITTED)["outcome"] == "unknown"
    queued = ACCEPTED.partition(":")[0] + ": to=<a@x.example>, mailer=smtp8, stat=queued"
    assert follow(SUBMITTED, ACCEPTED, queued)["outcome"] == "unknown"


def test_what_this_host_does_not_take_is_refused() -> None:
    refused = HANDED_ON.replace(
        "dsn=2.0.0, stat=Sent (6AQ2L43r003924 Message accepted for delivery)",
        "dsn=5.1.1, reply=550 5.1.1 <a@x.example>... Suppressed: its receiver, stat=User unknown",
    )
    told = follow(SUBMITTED, refused)

    assert told["outcome"] == "refused"
    assert told["words"] == "550 5.1.1 <a@x.example>... Suppressed: its receiver"


def test_other_messages_and_other_sessions_are_left_alone() -> None:
    other = SENT.replace("6AQ2L43r003924", "6AQ2L43r003999")
    assert follow(SUBMITTED, ACCEPTED, other)["outcome"] == "unknown"
    assert follow(SUBMITTED, ACCEPTED, ("8", TLS), ("7", SENT))["tls"] is None
    elsewhere = TLS.replace("mx.x.example.", "mx.y.example.")
    assert follow(SUBMITTED, ACCEPTED, ("7", elsewhere), ("7", SENT))["tls"] is None
