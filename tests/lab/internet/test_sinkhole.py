"""The sinkhole, against a plain SMTP client: each behaviour as that sees it, and its record."""

import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.rdatatype
import pytest

from lab.internet.addresses import NAME_SERVER, SINKHOLE, SINKHOLE_NAME
from lab.internet.internet import Internet
from lab.internet.receivers.sinkhole import (
    BEHAVIOURS,
    Behaviour,
    Orders,
    Sinkhole,
    Transaction,
    Transactions,
)
from lab.network import INTERNET, nat_namespace
from lab.network.namespace import entered
from tests.lab.internet.asking import ask_over_tcp
from tests.lab.internet.conftest import ELASTIC_IP, SENDING_DOMAIN, ZONE, Sender
from tests.lab.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.lab

MAIL_FROM = f"stream@{SENDING_DOMAIN}"
RECIPIENT = "u1@d3.run.sinkhole.example"
MESSAGE_ID = f"<1.run@{SENDING_DOMAIN}>"
MESSAGE = (
    f"From: <{MAIL_FROM}>\r\nTo: <{RECIPIENT}>\r\nSubject: One\r\nMessage-ID: {MESSAGE_ID}\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nBody\r\n"
).encode()


@pytest.fixture
def sinkhole(running_internet: Internet) -> Iterator[Sinkhole]:
    """The sinkhole, which accepts everything at first, and again when the test ends."""
    yield running_internet.sinkhole
    running_internet.sinkhole.obey(Orders())


@pytest.fixture
def transactions(sinkhole: Sinkhole, received: Path) -> Transactions:
    """What the sinkhole records from now on."""
    return Transactions(received / sinkhole.name)


@pytest.fixture
def client(sinkhole: Sinkhole, sender: Sender) -> Iterator[smtplib.SMTP]:  # noqa: ARG001 - is up
    """A connection that said EHLO, made while the sinkhole accepts everything."""
    client = sender.connect(SINKHOLE)
    yield client
    client.close()


def raw_connection() -> socket.socket:
    """A TCP connection, whose greeting nobody read yet."""
    with entered(nat_namespace(ZONE)):
        return socket.create_connection(
            (SINKHOLE, 25), source_address=(ELASTIC_IP, 0), timeout=PATIENCE_SECONDS
        )


def to_recipient(client: smtplib.SMTP, recipient: str = RECIPIENT) -> tuple[int, bytes]:
    """The answer to RCPT in a transaction that is new."""
    client.rset()
    assert client.mail(MAIL_FROM)[0] == 250
    return client.rcpt(recipient)


def deliver(client: smtplib.SMTP, message: bytes = MESSAGE) -> tuple[int, bytes]:
    """The answer to a message."""
    assert to_recipient(client)[0] == 250
    return client.data(message)


def only(transactions: Transactions) -> Transaction:
    (transaction,) = transactions.read()
    return transaction


def test_each_behaviour_has_words() -> None:
    assert set(BEHAVIOURS) == set(Behaviour)


def test_a_signed_message_over_tls_is_recorded_in_full(
    client: smtplib.SMTP, transactions: Transactions, sender: Sender
) -> None:
    before = time.time()
    client.starttls()
    client.ehlo()
    assert client.mail(MAIL_FROM)[0] == 250
    for recipient in (RECIPIENT, "u2@sinkhole.example"):
        assert client.rcpt(recipient)[0] == 250
    assert client.data(sender.sign(MESSAGE) + MESSAGE) == (250, b"2.0.0 Counted")
    transaction = only(transactions)
    assert before <= transaction.time <= time.time()
    assert transaction == Transaction(
        time=transaction.time,
        message_id=MESSAGE_ID,
        mail_from=MAIL_FROM,
        recipients=(RECIPIENT, "u2@sinkhole.example"),
        address=ELASTIC_IP,
        port=transaction.port,
        accepted=True,
        reply="250 2.0.0 Counted",
        signed=True,
        dkim="pass",
        tls="TLSv1.3",
    )
    assert transactions.read() == []


def test_a_bounce_has_no_envelope_sender(client: smtplib.SMTP, transactions: Transactions) -> None:
    client.mail("")
    client.rcpt(RECIPIENT)
    assert client.data(MESSAGE)[0] == 250
    assert only(transactions).mail_from == ""


def test_hundreds_may_connect_at_once(sinkhole: Sinkhole) -> None:  # noqa: ARG001 - is up
    with ExitStack() as stack:
        connections = [stack.enter_context(raw_connection()) for _ in range(400)]
        assert all(connection.recv(4) == b"220 " for connection in connections)


def test_every_name_below_its_domain_has_it_as_exchange(
    sinkhole: Sinkhole,  # noqa: ARG001 - is up, and so is DNS
) -> None:
    for domain in ("sinkhole.example", "d17.sinkhole.example", "d17.run.sinkhole.example"):
        answer = ask_over_tcp(domain, dns.rdatatype.MX, namespace=INTERNET, server=NAME_SERVER)
        assert [str(mx.exchange) for mx in answer.answer[0]] == [f"{SINKHOLE_NAME}."]


def test_unsigned_and_altered_messages_are_told_from_signed_ones_and_kept(
    client: smtplib.SMTP, transactions: Transactions, sender: Sender, received: Path
) -> None:
    kept = received / SINKHOLE_NAME
    before = len(list(kept.glob("invalid-*.eml")))
    altered = sender.sign(MESSAGE) + MESSAGE.replace(b"Body", b"Bogus")
    for message in (MESSAGE, altered):
        assert deliver(client, message)[0] == 250
    unsigned_record, altered_record = transactions.read()
    assert (unsigned_record.signed, unsigned_record.dkim, unsigned_record.tls) == (
        False,
        "fail",
        "",
    )
    assert (altered_record.signed, altered_record.dkim) == (True, "fail")
    assert len(list(kept.glob("invalid-*.eml"))) == before + 2


def test_of_so_many_messages_one_is_verified(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions, sender: Sender
) -> None:
    with pytest.raises(ValueError, match="verify_every is 0"):
        Orders(verify_every=0)
    sinkhole.obey(Orders(verify_every=2))
    message = sender.sign(MESSAGE) + MESSAGE
    for _ in range(4):
        assert deliver(client, message)[0] == 250
    results = [transaction.dkim for transaction in transactions.read()]
    assert sorted(results) == ["", "", "pass", "pass"]
    assert results[0] != results[1]


def test_a_message_whose_key_cannot_be_looked_up_is_deferred_and_not_bounced(
    internet: Internet, client: smtplib.SMTP, transactions: Transactions, sender: Sender
) -> None:
    # No key of this name exists, so that none can be remembered.
    message = sender.sign(MESSAGE, selector="unknown") + MESSAGE
    internet.publish(["servfail"])
    assert deliver(client, message) == (451, b"4.7.5 The key server did not answer")
    deferred = only(transactions)
    assert (deferred.accepted, deferred.signed, deferred.dkim) == (False, True, "")
    internet.publish()
    assert deliver(client, message)[0] == 250
    assert only(transactions).dkim == "fail"


@pytest.mark.parametrize("domain", ["example.net", "notsinkhole.example", "sinkhole.example.net"])
def test_mail_for_other_domains_is_refused(
    client: smtplib.SMTP, transactions: Transactions, domain: str
) -> None:
    code, reply = to_recipient(client, f"someone@{domain}")
    assert (code, reply[:5]) == (550, b"5.7.1")
    assert only(transactions).recipients == (f"someone@{domain}",)


def test_the_answer_to_a_message_takes_as_long_as_ordered(
    sinkhole: Sinkhole, client: smtplib.SMTP
) -> None:
    sinkhole.obey(Orders(delay_seconds=0.5))
    began = time.monotonic()
    assert deliver(client)[0] == 250
    assert time.monotonic() - began >= 0.5


def test_refused_connections_are_accepted_again_on_request(
    sinkhole: Sinkhole, transactions: Transactions, sender: Sender
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.REFUSE_CONNECTIONS))
    with pytest.raises(ConnectionRefusedError):
        sender.connect(SINKHOLE)
    assert transactions.read() == []
    sinkhole.obey(Orders())
    with sender.connect(SINKHOLE) as client:
        assert deliver(client)[0] == 250


def test_an_unanswered_connection_is_answered_when_the_behaviour_ends(sinkhole: Sinkhole) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.UNANSWERED))
    with raw_connection() as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        sinkhole.obey(Orders())
        connection.settimeout(PATIENCE_SECONDS)
        assert connection.recv(100).startswith(b"220 mx.sinkhole.example")


def test_an_answer_that_nobody_got_is_not_recorded(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions
) -> None:
    assert to_recipient(client)[0] == 250
    assert client.docmd("DATA")[0] == 354
    sinkhole.obey(Orders(behaviour=Behaviour.UNANSWERED))
    client.send(MESSAGE + b".\r\n")
    time.sleep(0.3)
    assert transactions.read() == []
    sinkhole.obey(Orders())
    assert client.getreply()[0] == 250
    assert only(transactions).accepted


def test_a_slow_answer_has_one_byte_a_second_until_the_behaviour_ends(sinkhole: Sinkhole) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.SLOW))
    began = time.monotonic()
    with raw_connection() as connection:
        for position, octet in enumerate(b"220"):
            assert connection.recv(1) == bytes([octet])
            assert time.monotonic() - began >= position
        sinkhole.obey(Orders())
        began = time.monotonic()
        with connection.makefile("rb") as answer:
            rest = answer.readline()
        assert rest.startswith(b" mx.sinkhole.example")
        assert time.monotonic() - began < 20 < len(rest)


def test_greylisting_defers_each_sender_and_recipient(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.GREYLIST, greylist_seconds=3600))
    first, second = "grey1@sinkhole.example", "grey2@sinkhole.example"
    for recipient in (first, first, second):
        assert to_recipient(client, recipient) == (451, b"4.7.1 Greylisted, try again")
    records = [(record.recipients, record.accepted) for record in transactions.read()]
    assert records == [((first,), False), ((first,), False), ((second,), False)]


def test_greylisting_lasts_for_the_ordered_time_from_each_first_attempt(
    sinkhole: Sinkhole, client: smtplib.SMTP
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.GREYLIST, greylist_seconds=1))
    began = time.monotonic()
    assert to_recipient(client)[0] == 451
    eventually(lambda: to_recipient(client)[0] == 250)
    assert time.monotonic() - began >= 1
    assert to_recipient(client, "grey3@sinkhole.example")[0] == 451


def test_greylisting_begins_anew_when_it_is_ordered_again(
    sinkhole: Sinkhole, client: smtplib.SMTP
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.GREYLIST, greylist_seconds=0.2))
    assert to_recipient(client)[0] == 451
    time.sleep(0.3)
    assert to_recipient(client)[0] == 250
    sinkhole.obey(Orders(behaviour=Behaviour.GREYLIST, greylist_seconds=0.2))
    assert to_recipient(client)[0] == 451


def test_greylisting_knows_the_client(sinkhole: Sinkhole, client: smtplib.SMTP) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.GREYLIST, greylist_seconds=0.2))
    assert to_recipient(client)[0] == 451
    time.sleep(0.3)
    with entered(INTERNET):
        another = smtplib.SMTP(SINKHOLE, local_hostname=SENDING_DOMAIN, timeout=PATIENCE_SECONDS)
    with another:
        another.ehlo()
        assert to_recipient(another)[0] == 451


@pytest.mark.parametrize("command", ["MAIL FROM:<a@mail.example.com>", "RSET", "NOOP", "QUIT"])
def test_whatever_follows_the_first_message_of_a_connection_meets_421_and_its_end(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions, command: str
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.CLOSE_AFTER_EACH))
    assert deliver(client)[0] == 250
    assert client.docmd(command) == (421, b"4.7.0 One message a connection")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    message, *refusals = transactions.read()
    assert message.accepted
    # QUIT was not going to use the connection for more.
    assert [(refusal.accepted, refusal.reply[:3]) for refusal in refusals] == (
        [] if command == "QUIT" else [(False, "421")]
    )


@pytest.mark.parametrize(
    ("behaviour", "reply"),
    [
        (Behaviour.DEFER_AT_RCPT, (450, b"4.2.1 Mailbox busy")),
        (Behaviour.BOUNCE, (550, b"5.1.1 No such user")),
    ],
)
def test_a_recipient_is_refused_before_the_message(
    sinkhole: Sinkhole,
    client: smtplib.SMTP,
    transactions: Transactions,
    behaviour: Behaviour,
    reply: tuple[int, bytes],
) -> None:
    sinkhole.obey(Orders(behaviour=behaviour))
    assert to_recipient(client) == reply
    refused = only(transactions)
    assert (refused.accepted, refused.message_id, refused.recipients) == (False, "", (RECIPIENT,))
    assert refused.reply == f"{reply[0]} {reply[1].decode()}"


@pytest.mark.parametrize(
    ("behaviour", "reply"),
    [
        (Behaviour.DEFER_AT_DATA, (451, b"4.3.0 Not now")),
        (Behaviour.BOUNCE_AT_DATA, (550, b"5.7.1 Not wanted here")),
    ],
)
def test_a_message_is_refused_after_it_was_sent(
    sinkhole: Sinkhole,
    client: smtplib.SMTP,
    transactions: Transactions,
    behaviour: Behaviour,
    reply: tuple[int, bytes],
) -> None:
    sinkhole.obey(Orders(behaviour=behaviour))
    assert deliver(client) == reply
    refused = only(transactions)
    assert (refused.accepted, refused.message_id) == (False, MESSAGE_ID)
    assert refused.reply == f"{reply[0]} {reply[1].decode()}"


def test_a_connection_that_breaks_in_the_message_delivers_nothing(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.DROP_IN_DATA))
    # Whether the client meets the end while it still writes depends on the moment.
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        deliver(client)
    assert transactions.read() == []


def test_a_connection_that_breaks_after_the_message_leaves_it_not_accepted(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.DROP_AFTER_DATA))
    with pytest.raises(smtplib.SMTPServerDisconnected):
        deliver(client)
    dropped = only(transactions)
    assert (dropped.message_id, dropped.accepted, dropped.reply) == (MESSAGE_ID, False, "")


def test_no_starttls_is_offered_and_mail_is_taken_without(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions, sender: Sender
) -> None:
    assert client.has_extn("starttls")
    sinkhole.obey(Orders(behaviour=Behaviour.NO_STARTTLS))
    with sender.connect(SINKHOLE) as other:
        assert not other.has_extn("starttls")
        assert deliver(other)[0] == 250
    assert only(transactions).tls == ""


def test_a_broken_starttls_fails_in_the_handshake(
    sinkhole: Sinkhole, client: smtplib.SMTP, transactions: Transactions
) -> None:
    sinkhole.obey(Orders(behaviour=Behaviour.BROKEN_STARTTLS))
    assert client.has_extn("starttls")
    with pytest.raises(ssl.SSLError):
        client.starttls()
    assert transactions.read() == []


@pytest.fixture
def verifying(running_internet: Internet) -> Callable[[smtplib.SMTP], None]:
    """STARTTLS by a client that checks the certificate's date and issuer."""

    def start_tls(client: smtplib.SMTP) -> None:
        context = ssl.create_default_context(cafile=running_internet.ca_certificate)
        context.check_hostname = False  # the client knows the address only
        client.starttls(context=context)

    return start_tls


def test_an_expired_certificate_stops_only_who_checks_it(
    sinkhole: Sinkhole,
    client: smtplib.SMTP,
    transactions: Transactions,
    sender: Sender,
    verifying: Callable[[smtplib.SMTP], None],
) -> None:
    verifying(client)
    sinkhole.obey(Orders(behaviour=Behaviour.EXPIRED_CERTIFICATE))
    with sender.connect(SINKHOLE) as trusting:
        trusting.starttls()
        trusting.ehlo()
        assert deliver(trusting)[0] == 250
    assert only(transactions).tls == "TLSv1.3"
    checking = sender.connect(SINKHOLE)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        verifying(checking)
    checking.close()
