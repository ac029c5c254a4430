"""A DKIM key is made once, and its private half is in the secret only."""

import base64
import json
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from stacks.custom_resources.handlers import dkim_key
from stacks.custom_resources.handlers.cloudformation import Refused, Resource
from tests.stacks.custom_resources.requests import aws_error, request

PROPERTIES = {
    "Domain": "mail.example.com",
    "Selector": "s1",
    "KmsKeyId": "arn:aws:kms:us-east-1:111122223333:key/1",
    "SecretArn": "arn:aws:secretsmanager:us-east-1:111122223333:secret:dkim-1",
}


class Kms:
    """Makes real key pairs, as `kms:GenerateDataKeyPair` answers them."""

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []

    def generate_data_key_pair(self, **request: object) -> dict[str, Any]:
        self.requests.append(request)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return {
            "PrivateKeyPlaintext": key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            "PublicKey": key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        }


class SecretsManager:
    """One secret; it has no value until one is put."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.refuse_to_put = False
        self.stored_meanwhile: str | None = None

    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:  # noqa: N803
        assert SecretId == PROPERTIES["SecretArn"]
        if self.value is None:
            raise aws_error("ResourceNotFoundException", "no AWSCURRENT", "GetSecretValue")
        return {"SecretString": self.value}

    def put_secret_value(self, **request: str) -> None:
        assert request["SecretId"] == PROPERTIES["SecretArn"]
        assert request["ClientRequestToken"] == "request-1"
        if self.refuse_to_put:
            raise aws_error("AccessDeniedException", "denied", "PutSecretValue")
        if self.stored_meanwhile:
            self.value = self.stored_meanwhile
            raise aws_error("ResourceExistsException", "another version", "PutSecretValue")
        self.value = request["SecretString"]


@pytest.fixture
def kms() -> Kms:
    return Kms()


@pytest.fixture
def secrets() -> SecretsManager:
    return SecretsManager()


def _serve(kind: str, kms: Kms, secrets: SecretsManager, **changed: str) -> Resource:
    physical_id = None if kind == "Create" else "s1._domainkey.mail.example.com"
    event = request(kind, {**PROPERTIES, **changed}, physical_id=physical_id)
    return dkim_key.serve(event, kms=kms, secrets=secrets)


def test_create_puts_the_private_key_into_the_secret(kms: Kms, secrets: SecretsManager) -> None:
    resource = _serve("Create", kms, secrets)
    assert secrets.value is not None
    stored = json.loads(secrets.value)
    assert set(stored) == {"domain", "selector", "private_key", "record"}
    assert (stored["domain"], stored["selector"]) == ("mail.example.com", "s1")
    assert stored["record"] == resource.data["Record"]
    private = serialization.load_pem_private_key(stored["private_key"].encode(), password=None)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert f"p={base64.b64encode(public).decode()}" in _joined(stored["record"])


def test_the_record_is_quoted_strings_that_route_53_takes(
    kms: Kms, secrets: SecretsManager
) -> None:
    record = _serve("Create", kms, secrets).data["Record"]
    assert re.fullmatch(r'"[^"]{1,255}"( "[^"]{1,255}")*', record)
    assert _joined(record).startswith("v=DKIM1; k=rsa; p=")


def test_only_the_public_half_is_returned(kms: Kms, secrets: SecretsManager) -> None:
    resource = _serve("Create", kms, secrets)
    assert set(resource.data) == {"Record"}
    assert secrets.value is not None
    private_key = json.loads(secrets.value)["private_key"]
    assert private_key.splitlines()[1] not in str(resource)


def test_the_pair_is_asked_for_in_the_context_that_the_role_is_allowed(
    kms: Kms, secrets: SecretsManager
) -> None:
    _serve("Create", kms, secrets)
    assert kms.requests == [
        {
            "KeyId": PROPERTIES["KmsKeyId"],
            "KeyPairSpec": "RSA_2048",
            "EncryptionContext": {"domain": "mail.example.com", "selector": "s1"},
        }
    ]


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_a_repeated_request_keeps_the_key(kms: Kms, secrets: SecretsManager, kind: str) -> None:
    first = _serve("Create", kms, secrets)
    stored = secrets.value
    assert _serve(kind, kms, secrets) == first
    assert secrets.value == stored
    assert len(kms.requests) == 1


def test_two_deliveries_of_a_request_agree_on_one_key(kms: Kms, secrets: SecretsManager) -> None:
    first = SecretsManager()
    record = _serve("Create", kms, first).data["Record"]
    secrets.stored_meanwhile = first.value
    assert _serve("Create", Kms(), secrets).data["Record"] == record


def test_a_failure_to_store_is_retried_with_a_new_pair(kms: Kms, secrets: SecretsManager) -> None:
    secrets.refuse_to_put = True
    with pytest.raises(Exception, match="PutSecretValue"):
        _serve("Create", kms, secrets)
    secrets.refuse_to_put = False
    assert _serve("Create", kms, secrets).data["Record"]


@pytest.mark.parametrize("changed", [{"Domain": "post.example.com"}, {"Selector": "s2"}])
def test_an_update_never_gives_a_key_another_name(
    kms: Kms, secrets: SecretsManager, changed: dict[str, str]
) -> None:
    _serve("Create", kms, secrets)
    stored = secrets.value
    with pytest.raises(Refused, match=r"s1\._domainkey\.mail\.example\.com exists and never"):
        _serve("Update", kms, secrets, **changed)
    assert secrets.value == stored


def test_a_secret_that_cannot_be_read_is_not_taken_for_an_empty_one(
    kms: Kms, secrets: SecretsManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_request: str) -> dict[str, Any]:
        raise aws_error("AccessDeniedException", "denied", "GetSecretValue")

    monkeypatch.setattr(secrets, "get_secret_value", denied)
    with pytest.raises(Exception, match="AccessDenied"):
        _serve("Create", kms, secrets)
    assert secrets.value is None


def test_delete_leaves_the_key_to_the_secret(kms: Kms, secrets: SecretsManager) -> None:
    _serve("Create", kms, secrets)
    stored = secrets.value
    assert _serve("Delete", kms, secrets).physical_id == "s1._domainkey.mail.example.com"
    assert secrets.value == stored


def _joined(record: str) -> str:
    return "".join(re.findall(r'"([^"]*)"', record))
