"""DKIM keys: what receivers can verify with, and how old."""

from datetime import UTC, datetime, timedelta

import dns.rcode
import pytest

from ops.doctor import dkim
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import DOMAIN, KEYS, SHORT_KEY, Patient

NAME = f"s2026a._domainkey.{DOMAIN}"
KEY = KEYS["s2026a"]


@pytest.mark.parametrize(
    ("tags", "evidence"),
    [
        (f"v=DKIM1; k=rsa; p={SHORT_KEY}", "RSA, 1024 bits; at least 2048"),
        ("v=DKIM1; k=rsa; p=", "revoked"),
        ("v=DKIM1; k=rsa", "revoked"),
        (f"v=DKIM1; k=rsa; t=s:y; p={KEY[:250]}", "t=y"),
        (f"v=DKIM1; k=ed25519; p={KEY[:250]}", "ed25519"),
        (f"v=DKIM2; p={KEY[:250]}", "DKIM2"),
        (f"v=DKIM1; p={KEY[:200]}", "no public key"),
        ("v=DKIM1; p=***", "no public key"),
    ],
)
def test_a_record_that_receivers_cannot_use_is_wrong(
    patient: Patient, tags: str, evidence: str
) -> None:
    strings = [tags[start : start + 255] for start in range(0, len(tags), 255)]
    patient.world.publish(NAME, "TXT", " ".join(f'"{string}"' for string in strings))
    found = patient.look(dkim.check_keys)
    assert found["DKIM key s2026a"].verdict is Verdict.WRONG
    assert evidence in found["DKIM key s2026a"].evidence
    assert found["DKIM key s2026b"].verdict is Verdict.FINE


def test_one_record_and_neither_none_nor_two(patient: Patient) -> None:
    patient.world.publish(NAME, "TXT", '"v=DKIM1; p=x"', '"v=DKIM1; p=y"')
    assert "2 TXT records" in patient.look(dkim.check_keys)["DKIM key s2026a"].evidence
    patient.world.publish(NAME, "TXT")
    assert patient.look(dkim.check_keys)["DKIM key s2026a"].verdict is Verdict.WRONG


def test_a_selector_that_cannot_be_asked_leaves_the_other(patient: Patient) -> None:
    patient.world.fail(dns.rcode.REFUSED, NAME)
    found = patient.look(dkim.check_keys)
    assert found["DKIM key s2026a"].verdict is Verdict.UNKNOWN
    assert found["DKIM key s2026b"].verdict is Verdict.FINE


@pytest.mark.parametrize(("days", "verdict"), [(183, Verdict.FINE), (184, Verdict.WRONG)])
def test_the_signing_key_may_be_six_months_old(
    patient: Patient, days: int, verdict: Verdict
) -> None:
    created = datetime.now(UTC) - timedelta(days=days, hours=1)
    described = patient.aws.answers["secretsmanager", "describe_secret"]
    patient.aws.answers["secretsmanager", "describe_secret"] = lambda **asked: {
        **described(**asked),
        "CreatedDate": created,
    }
    found = patient.look(dkim.check_age)
    assert found["Age of DKIM key s2026a"].verdict is verdict
    assert found["Age of DKIM key s2026a"].evidence == f"{days} days"
    assert "postern dkim rotate" in found["Age of DKIM key s2026a"].remedy or days == 183
    # The other one waits for its turn, or has had it.
    assert found["Age of DKIM key s2026b"].verdict is Verdict.FINE


def test_a_key_whose_secret_is_not_found_has_no_age(patient: Patient) -> None:
    patient.aws.answers["secretsmanager", "describe_secret"] = {"Description": "another"}
    assert patient.look(dkim.check_age)["Age of DKIM key s2026a"].verdict is Verdict.UNKNOWN
