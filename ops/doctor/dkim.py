"""The DKIM keys: their records by RFC 6376 and 8301, and their age."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ops.command_lines import postern
from ops.deployment import CannotTell
from ops.doctor.facts import Facts
from ops.doctor.untold import told
from ops.verdicts import Finding, Verdict

# RFC 8301 section 3.2: signers should use at least so many.
SMALLEST_KEY_BITS = 2048
# M3AAWG, DKIM Key Rotation Best Common Practices: about every six months.
LONGEST_AGE_DAYS = 183


class NotAKey(Exception):
    """A text is no DKIM key record; the exception's says why."""


def public_key(record: str) -> str:
    """The base64 of the key in a DKIM key record, without white space.

    Raises:
        NotAKey: the record has none, or asks receivers to ignore it.
    """
    # RFC 6376 section 3.2: tag=value, separated by semicolons, white space around each.
    tags = {
        name.strip(): value.strip()
        for name, equals, value in (tag.partition("=") for tag in record.split(";"))
        if equals
    }
    if tags.get("v", "DKIM1") != "DKIM1":
        raise NotAKey(f"its version is {tags['v']}, not DKIM1")
    if tags.get("k", "rsa") != "rsa":
        raise NotAKey(f"it is a key of the kind {tags['k']}, and the host signs with rsa")
    if "y" in tags.get("t", "").replace(" ", "").split(":"):
        raise NotAKey("t=y asks receivers to treat what it signs as unsigned")
    key = "".join(tags.get("p", "").split())
    if not key:
        raise NotAKey("it has no key (p=), which means that the key is revoked")
    return key


def key_bits(record: str) -> int:
    """The size of the RSA key in a DKIM key record; raises NotAKey."""
    try:
        key = load_der_public_key(base64.b64decode(public_key(record), validate=True))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotAKey(f"p= is no public key: {error}") from error
    if not isinstance(key, RSAPublicKey):
        raise NotAKey("p= is no RSA key")
    return key.key_size


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Each selector's record, as the world sees it, holds one RSA key that is long enough."""
    for selector in facts.settings.dkim.selectors:
        yield told(f"DKIM key {selector}", partial(_key, facts, selector))


def check_age(facts: Facts) -> Iterator[Finding]:
    """The signing key is not older than six months."""
    # What the secret itself says of its key's name: a logical id leaves hyphens out.
    secrets = {
        answer.get("Description", "").rpartition(" ")[2]: answer
        for answer in (
            # It gives no secret value, so an operator need not be allowed to read one.
            facts.deployment.call("secretsmanager", "describe_secret", SecretId=secret.physical_id)
            for secret in facts.deployment.stack("SendingIdentity").of_type(
                "AWS::SecretsManager::Secret"
            )
        )
    }
    for selector in facts.settings.dkim.selectors:
        secret = secrets.get(facts.dkim_record(selector).name, {})
        yield _age(facts, selector, secret.get("CreatedDate"))


def _key(facts: Facts, selector: str, check: str) -> Finding:
    record = facts.dkim_record(selector)
    values = facts.dns.ask_public(record.name, "TXT")
    try:
        bits = key_bits(_only(values))
    except NotAKey as fault:
        return Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=f"{record.name}: {fault}",
            remedy=f"Put the record back as it was deployed: see the finding {record.title}.",
        )
    if bits >= SMALLEST_KEY_BITS:
        return Finding(check=check, verdict=Verdict.FINE, evidence=f"RSA, {bits} bits")
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"RSA, {bits} bits; at least {SMALLEST_KEY_BITS} should be (RFC 8301)",
        remedy=f"Make a new key: {_rotate(facts)}",
    )


def _only(values: tuple[str, ...]) -> str:
    if len(values) != 1:
        raise NotAKey(f"{len(values)} TXT records, and there must be one")
    return values[0]


def _age(facts: Facts, selector: str, created: datetime | None) -> Finding:
    check = f"Age of DKIM key {selector}"
    if created is None:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence="no secret of the stack SendingIdentity is described as its private key",
            remedy="See the findings on the stack and on its selectors.",
        )
    # A key never changes, so it is as old as its secret.
    days = (datetime.now(UTC) - created).days
    signs = selector == facts.settings.dkim.signing
    if signs and days > LONGEST_AGE_DAYS:
        return Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=f"{days} days",
            remedy=f"It should sign no longer than {LONGEST_AGE_DAYS}: {_rotate(facts)}",
        )
    evidence = f"{days} days" if signs else f"{days} days; it does not sign"
    return Finding(check=check, verdict=Verdict.FINE, evidence=evidence)


def same_key(record: str, host_key: str) -> bool:
    """Whether a host's public key, in base64, is the one in a record; raises CannotTell."""
    try:
        return public_key(record) == host_key
    except NotAKey as fault:
        raise CannotTell(f"The hosted zone's record is no key: {fault}") from fault


def _rotate(facts: Facts) -> str:
    return postern(facts.settings, "dkim rotate")
