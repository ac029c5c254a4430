"""The catalogue: legal messages, each of which asks for the change it is there for."""

import re

import pytest

from lab.internet.messages import MAX_LINE_OCTETS, Sample, catalogue, differences

SAMPLES = {
    sample.name: sample
    for sample in catalogue(
        sender="application@mail.example.com",
        domains=["example.net", "example.org"],
        token="token",  # noqa: S106 - not a secret
    )
}


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]


def without_bcc(sample: Sample) -> bytes:
    return re.sub(rb"(?m)^Bcc:.*\n", b"", sample.content)


def test_every_line_is_within_the_limit(sample: Sample) -> None:
    assert max(len(line) for line in sample.content.split(b"\n")) <= MAX_LINE_OCTETS
    assert b"\r" not in sample.content


def test_every_sample_reaches_both_domains(sample: Sample) -> None:
    assert {address.partition("@")[2] for address in sample.recipients} == {
        "example.net",
        "example.org",
    }


def test_a_copy_that_arrives_as_sent_is_recognised(sample: Sample) -> None:
    received = b"Received: from x\r\n" + without_bcc(sample).replace(b"\n", b"\r\n")
    assert differences(sample, received, sample.recipients) == []


def test_subjects_and_ids_tell_all_messages_apart() -> None:
    assert len({sample.message_id for sample in SAMPLES.values()}) == len(SAMPLES)
    again = catalogue(
        sender="application@mail.example.com",
        domains=["example.net", "example.org"],
        token="other",  # noqa: S106 - not a secret
    )
    assert not {s.message_id for s in again} & {s.message_id for s in SAMPLES.values()}


def test_each_sample_is_what_its_name_says() -> None:
    lines = {name: sample.content.split(b"\n") for name, sample in SAMPLES.items()}
    assert len(SAMPLES["thirty-recipients"].recipients) == 30
    assert sum(len(line) >= 890 for line in lines["long-header-lines"]) == 2
    assert b"Subject: =?utf-8?" in SAMPLES["encoded-subject"].content
    assert not SAMPLES["raw-subject"].content.isascii()
    assert not SAMPLES["8-bit-body"].text.isascii()
    assert lines["dot-lines"].count(b".") == 3
    assert len(SAMPLES["large-attachment"].attachment or b"") == 5 * 1024 * 1024
    assert SAMPLES["empty-body"].content.endswith(b"\n\n")
    assert SAMPLES["blind-copy"].blind == ("hidden@example.org",)


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("plain", b"ordinary", b"odd", "The text became"),
        ("plain", b"<plain.", b"<other.", "The Message-ID became"),
        ("encoded-subject", b"=?utf-8?b?7KCc66qp?=", b"?", "The subject became"),
        ("thirty-recipients", b"recipient-07@", b"someone@", "To: names"),
        ("8-bit-body", "ü".encode(), b"?", "The text became"),
        ("dot-lines", b"\n..\n", b"\n.\n", "The text became"),
    ],
)
def test_a_change_on_the_way_is_found(name: str, old: bytes, new: bytes, sentence: str) -> None:
    sample = SAMPLES[name]
    assert old in sample.content
    (found,) = differences(sample, sample.content.replace(old, new), sample.recipients)
    assert found.startswith(sentence)


def test_a_lost_attachment_is_found() -> None:
    sample = SAMPLES["large-attachment"]
    text_only = sample.content.replace(b"multipart/mixed", b"text/plain")
    assert any("attachment" in found for found in differences(sample, text_only, ()))


def test_a_blind_copy_may_show_in_its_own_trace_and_nowhere_else() -> None:
    sample = SAMPLES["blind-copy"]
    trace = b"X-Envelope-To: hidden@example.org\n" + without_bcc(sample)
    assert differences(sample, trace, ["hidden@example.org"]) == []
    assert differences(sample, trace, ["someone@example.net"]) != []
    assert differences(sample, sample.content, ["hidden@example.org"]) != []
