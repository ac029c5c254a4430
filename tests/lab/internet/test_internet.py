"""The running Internet, with real mail: what each receiver says of good mail and of each fault."""

import http.client
import smtplib
import socket
import ssl
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dkim
import dns.exception
import dns.rcode
import pytest
from dns.message import Message
from dns.rdatatype import RdataType

from lab.internet.addresses import (
    AWS_FRONT,
    DEBIAN_MIRROR,
    NAME_SERVER,
    PUBLIC_RESOLVERS,
    SECOND_NAME_SERVER,
)
from lab.internet.hindered_dns import DELAY_SECONDS
from lab.internet.internet import Internet
from lab.internet.messages import Sample, catalogue, differences
from lab.internet.verdict import Verdict, faults
from lab.network import INTERNET
from lab.network.namespace import entered
from tests.lab.internet.asking import SILENCE_SECONDS, ask, ask_over_tcp
from tests.lab.internet.conftest import (
    ELASTIC_IP,
    SENDING_DOMAIN,
    ZONE,
    DkimKey,
    Sender,
    StubbedCloud,
    record_set,
)
from tests.lab.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.lab

FIRST, SECOND = "mx.example.net", "mx.example.org"


def samples() -> tuple[Sample, ...]:
    return catalogue(
        sender=f"application@{SENDING_DOMAIN}",
        domains=["example.net", "example.org"],
        token=uuid.uuid4().hex[:8],
    )


def plain() -> Sample:
    return samples()[0]


def by_receiver(internet: Internet, sample: Sample) -> dict[str, Verdict]:
    verdicts = internet.wait_for(message_id=sample.message_id)
    return {verdict.receiver: verdict for verdict in verdicts}


def over_udp(name: str, kind: RdataType, *, timeout: float = PATIENCE_SECONDS) -> Message:
    """The name server's answer over UDP."""
    return ask(name, kind, namespace=INTERNET, server=NAME_SERVER, timeout=timeout)


def over_tcp(name: str, kind: RdataType) -> Message:
    """The name server's answer over TCP."""
    return ask_over_tcp(name, kind, namespace=INTERNET, server=NAME_SERVER)


def served_spf() -> str:
    """The SPF record that the name server answers with."""
    return over_udp(SENDING_DOMAIN, RdataType.TXT).to_text()


def test_good_mail_passes_every_check_of_both_receivers(internet: Internet, sender: Sender) -> None:
    sample = plain()
    sender.send(sample)
    for verdict in by_receiver(internet, sample).values():
        assert faults(verdict) == {}
        assert verdict.address == ELASTIC_IP
        assert verdict.helo == verdict.reverse_dns == SENDING_DOMAIN
        assert verdict.tls == "TLSv1.3"
        assert verdict.dkim_domain == SENDING_DOMAIN
        assert verdict.mail_from == f"application@{SENDING_DOMAIN}"


# Each fault, and what SPF, DKIM, DMARC and reverse DNS say of it at either receiver.
SEEN = {
    ("spf-without-eip", FIRST): ("fail", "pass", "pass", "pass"),
    ("spf-without-eip", SECOND): ("fail", "pass", "pass", "pass"),
    ("spf-twice", FIRST): ("permerror", "pass", "pass", "pass"),
    ("spf-twice", SECOND): ("permerror", "pass", "pass", "pass"),
    ("dkim-missing", FIRST): ("pass", "fail", "pass", "pass"),
    ("dkim-missing", SECOND): ("pass", "fail", "pass", "pass"),
    ("dkim-broken", FIRST): ("pass", "fail", "pass", "pass"),
    ("dkim-broken", SECOND): ("pass", "fail", "pass", "pass"),
    ("ptr-missing", FIRST): ("pass", "pass", "pass", "fail"),
    ("ptr-missing", SECOND): ("pass", "pass", "pass", "fail"),
    ("ptr-other-name", FIRST): ("pass", "pass", "pass", "fail"),
    ("ptr-other-name", SECOND): ("pass", "pass", "pass", "fail"),
    ("dmarc-missing", FIRST): ("pass", "pass", "none", "pass"),
    ("dmarc-missing", SECOND): ("pass", "pass", "none", "pass"),
}


@pytest.mark.parametrize("fault", sorted({fault for fault, _ in SEEN}))
def test_each_fault_is_seen_by_both_receivers_and_by_nothing_else(
    internet: Internet, sender: Sender, fault: str
) -> None:
    sample = plain()
    internet.publish([fault])
    sender.send(sample)
    for receiver, verdict in by_receiver(internet, sample).items():
        seen = (verdict.spf, verdict.dkim, verdict.dmarc, verdict.iprev)
        assert seen == SEEN[fault, receiver], receiver
        assert verdict.accepted


def test_mail_that_neither_spf_nor_dkim_vouches_for_is_refused(
    internet: Internet, sender: Sender
) -> None:
    sample = plain()
    internet.publish(["spf-without-eip", "dkim-broken"])
    sender.send(sample)
    verdicts = by_receiver(internet, sample)
    assert verdicts[FIRST].dmarc == "fail"
    assert verdicts[SECOND].dmarc == "fail"
    assert not verdicts[SECOND].accepted
    assert verdicts[SECOND].reply.startswith("550 5.7.1 rejected by DMARC policy")


def test_unsigned_mail_is_not_taken_for_signed(internet: Internet, sender: Sender) -> None:
    sample = plain()
    sender.send(sample, signed=False)
    for verdict in by_receiver(internet, sample).values():
        assert verdict.dkim == "none"
        assert "DKIM" in faults(verdict)


def test_an_unencrypted_connection_is_noticed(internet: Internet, sender: Sender) -> None:
    sample = plain()
    sender.send(sample, tls=False)
    for verdict in by_receiver(internet, sample).values():
        assert set(faults(verdict)) == {"TLS"}


def test_a_bounce_is_judged_by_its_helo_name(internet: Internet, sender: Sender) -> None:
    sample = plain()
    sender.send(sample, mail_from="")
    for verdict in by_receiver(internet, sample).values():
        assert verdict.mail_from == ""
        assert verdict.spf == "pass"


@pytest.mark.parametrize("name", [sample.name for sample in samples()])
def test_what_was_sent_arrives_and_still_carries_its_signature(
    internet: Internet, sender: Sender, dkim_key: DkimKey, name: str
) -> None:
    sample = next(sample for sample in samples() if sample.name == name)
    sender.send(sample)
    for verdict in by_receiver(internet, sample).values():
        assert faults(verdict) == {}
        assert verdict.path is not None
        received = verdict.path.read_bytes()
        assert differences(sample, received, verdict.recipients) == []
        assert dkim.verify(received, dnsfunc=dkim_key.look_up) is True


def test_one_copy_arrives_with_every_recipient_of_the_envelope(
    internet: Internet, sender: Sender
) -> None:
    sample = next(sample for sample in samples() if sample.name == "thirty-recipients")
    sender.send(sample)
    for receiver, verdict in by_receiver(internet, sample).items():
        domain = receiver.partition(".")[2]
        expected = [address for address in sample.recipients if address.endswith(domain)]
        assert sorted(verdict.recipients) == sorted(expected)
    everything = [v.receiver for v in internet.verdicts() if v.message_id == sample.message_id]
    assert sorted(everything) == [FIRST, SECOND]


def test_a_change_in_the_cloud_reaches_the_dns_by_itself(
    internet: Internet, cloud: StubbedCloud, sender: Sender
) -> None:
    spf = next(record for record in cloud.record_sets if "v=spf1" in str(record))
    cloud.record_sets.remove(spf)
    cloud.record_sets.append(record_set(spf["Name"], "TXT", '"v=spf1 ip4:192.0.2.1 -all"'))
    try:
        eventually(lambda: "192.0.2.1" in served_spf())
        sample = plain()
        sender.send(sample)
        assert {v.spf for v in by_receiver(internet, sample).values()} == {"fail"}
    finally:
        cloud.record_sets[-1] = spf


@pytest.mark.parametrize("server", [SECOND_NAME_SERVER, *PUBLIC_RESOLVERS])
def test_every_other_address_of_the_dns_says_the_same(internet: Internet, server: str) -> None:
    internet.publish()
    said = ask(SENDING_DOMAIN, RdataType.TXT, namespace=INTERNET, server=server)
    assert said.answer == over_udp(SENDING_DOMAIN, RdataType.TXT).answer
    assert said.rcode() == dns.rcode.NOERROR


def test_the_second_server_can_lag_and_comes_up_to_date_again(
    internet: Internet, cloud: StubbedCloud
) -> None:
    def seen_at(server: str) -> bool:
        answer = ask("new.example.com", RdataType.TXT, namespace=INTERNET, server=server)
        return bool(answer.answer)

    internet.publish(["second-server-lags"])
    cloud.record_sets.append(record_set("new.example.com.", "TXT", '"new"'))
    try:
        internet.publish(["second-server-lags"])  # returns when both are done
        assert seen_at(NAME_SERVER)
        assert not seen_at(SECOND_NAME_SERVER)
        internet.publish()
        assert seen_at(SECOND_NAME_SERVER)
    finally:
        cloud.record_sets.pop()


def test_a_fault_that_does_not_exist_leaves_the_dns_following_the_cloud(
    internet: Internet, cloud: StubbedCloud
) -> None:
    with pytest.raises(ValueError, match="Unknown DNS fault gone"):
        internet.publish(["gone"])
    added = record_set("added.example.com.", "TXT", '"after the refusal"')
    cloud.record_sets.append(added)
    try:
        eventually(
            lambda: "after the refusal" in over_udp("added.example.com", RdataType.TXT).to_text()
        )
    finally:
        cloud.record_sets.remove(added)


@pytest.mark.parametrize("fault", ["down", "servfail"])
def test_a_receiver_that_gets_no_answer_from_dns_does_not_refuse_for_good(
    internet: Internet, sender: Sender, fault: str
) -> None:
    sample = plain()
    internet.publish([fault])
    with pytest.raises(smtplib.SMTPDataError, match=r"451, b'4\.4\.3 "):
        sender.send(sample, domains=["example.net"])
    internet.publish()
    sender.send(sample, domains=["example.net"])
    (verdict,) = internet.wait_for(message_id=sample.message_id, receivers=[FIRST])
    assert faults(verdict) == {}


def test_a_dead_name_server_comes_back_on_request(internet: Internet, sender: Sender) -> None:
    internet.publish(["down"])
    with pytest.raises(dns.exception.Timeout):
        over_udp(SENDING_DOMAIN, RdataType.TXT, timeout=SILENCE_SECONDS)
    internet.publish()
    sample = plain()
    sender.send(sample)
    for verdict in by_receiver(internet, sample).values():
        assert faults(verdict) == {}


def test_a_slow_name_server_gives_every_answer_three_seconds_late_and_many_at_once(
    internet: Internet,
) -> None:
    internet.publish(["slow"])

    def timed(asked: Callable[[], Message]) -> tuple[str, float]:
        began = time.monotonic()
        return asked().to_text(), time.monotonic() - began

    names = [f"d{number}.run.sinkhole.example" for number in range(100)]
    questions = [partial(over_udp, name, RdataType.MX) for name in names]
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=101) as executor:
        spf = executor.submit(timed, partial(over_tcp, SENDING_DOMAIN, RdataType.TXT))
        exchanges = list(executor.map(timed, questions))
        answers = [*exchanges, spf.result()]
    assert time.monotonic() - began < 100 * DELAY_SECONDS / 5  # a fifth of what one by one takes
    assert all(seconds >= DELAY_SECONDS for _, seconds in answers)
    assert all("MX 10 mx.sinkhole.example." in text for text, _ in exchanges)
    assert "v=spf1" in spf.result()[0]
    internet.publish()
    assert "v=spf1" in served_spf()


def test_a_failing_name_server_says_servfail_to_everything(internet: Internet) -> None:
    internet.publish(["servfail"])
    for name in (SENDING_DOMAIN, "nobody.example.net"):
        for asked in (over_udp, over_tcp):
            answer = asked(name, RdataType.TXT)
            assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
    internet.publish(["slow"])  # one fault may follow another
    assert over_udp(SENDING_DOMAIN, RdataType.TXT).rcode() == dns.rcode.NOERROR
    internet.publish()
    assert "v=spf1" in served_spf()


def test_aws_apis_answer_over_tls_under_their_own_names(internet: Internet) -> None:
    tls = ssl.create_default_context(cafile=internet.ca_certificate)
    body = b"x" * 3_000_000
    for host in ("ec2.us-east-1.amazonaws.com", "bucket.s3.us-east-1.amazonaws.com"):
        with entered(f"nat-{ZONE}"):
            plain_socket = socket.create_connection((AWS_FRONT, 443), timeout=PATIENCE_SECONDS)
        client = http.client.HTTPSConnection(host, context=tls)
        client.sock = tls.wrap_socket(plain_socket, server_hostname=host)
        for _ in range(2):
            client.request("POST", "/", body)
            answer = client.getresponse()
            assert answer.headers["X-Host"] == host
            assert answer.read() == body
        client.close()


@pytest.mark.usefixtures("internet")
def test_the_mirror_serves_many_files_over_one_connection(mirror: Path) -> None:
    client = http.client.HTTPConnection(DEBIAN_MIRROR)
    with entered(f"nat-{ZONE}"):
        client.connect()
    connection = client.sock
    for _ in range(50):
        client.request("GET", "/a%2bb~c.deb")
        answer = client.getresponse()
        assert answer.read() == (mirror / "a+b~c.deb").read_bytes()
    assert client.sock is connection
    client.close()
