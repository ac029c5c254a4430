"""Custom::DkimKey: a DKIM key pair whose private half exists in Secrets Manager and nowhere else.

Properties: Domain, Selector, KmsKeyId, SecretArn. Attribute: Record, the public half as the value
of a Route 53 TXT record (quoted, in strings of at most 255 bytes: RFC 6376 section 3.6.2.2).
The secret holds JSON: domain, selector, private_key (PKCS#8 PEM) and record.
"""

import base64
import json
import textwrap
from typing import Any, Protocol

import boto3
from botocore.exceptions import ClientError

from . import cloudformation
from .cloudformation import Event, Refused, Resource

# RFC 8301: signers must use at least 1024 bits and should use at least 2048.
KEY_PAIR_SPEC = "RSA_2048"
LONGEST_TXT_STRING = 255


class Kms(Protocol):
    def generate_data_key_pair(self, **request: object) -> dict[str, Any]: ...


class SecretsManager(Protocol):
    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]: ...  # noqa: N803

    def put_secret_value(self, **request: str) -> object: ...


def handler(event: Event, _context: object) -> None:
    """What Lambda calls."""
    kms, secrets = boto3.client("kms"), boto3.client("secretsmanager")
    cloudformation.answer(event, lambda request: serve(request, kms=kms, secrets=secrets))


def serve(event: Event, *, kms: Kms, secrets: SecretsManager) -> Resource:
    """Make the key, unless the secret has one: a repeated request changes nothing."""
    properties = event["ResourceProperties"]
    domain, selector = properties["Domain"], properties["Selector"]
    physical_id = f"{selector}._domainkey.{domain}"
    if event["RequestType"] == "Delete":
        # The key is the secret's content and goes, or stays, with the secret.
        return Resource(physical_id=event["PhysicalResourceId"])
    key = _stored_key(secrets, properties["SecretArn"])
    if key is None:
        made = _make_key(kms, properties["KmsKeyId"], domain=domain, selector=selector)
        key = _store(secrets, properties["SecretArn"], made, event["RequestId"])
    if (key["domain"], key["selector"]) != (domain, selector):
        # Mail that was signed with it may still be under way, and its record must stay true.
        raise Refused(
            f"The key {key['selector']}._domainkey.{key['domain']} exists and never changes. Put "
            f"sending_domain back and describe {domain} in an environment's file of its own."
        )
    return Resource(physical_id=physical_id, data={"Record": key["record"]})


def _stored_key(secrets: SecretsManager, secret: str) -> dict[str, str] | None:
    try:
        value = secrets.get_secret_value(SecretId=secret)["SecretString"]
    except ClientError as error:
        # A new secret has no value yet. Were the secret itself missing, storing the key would fail.
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise
    key: dict[str, str] = json.loads(value)
    return key


def _store(
    secrets: SecretsManager, secret: str, made: dict[str, str], request_id: str
) -> dict[str, str]:
    """Store the key, and return the one that is stored.

    Lambda may deliver a request twice at the same time: the second finds the first one's version.
    """
    try:
        secrets.put_secret_value(
            SecretId=secret, SecretString=json.dumps(made), ClientRequestToken=request_id
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceExistsException":
            raise
        stored = _stored_key(secrets, secret)
        assert stored is not None
        return stored
    return made


def _make_key(kms: Kms, kms_key: str, *, domain: str, selector: str) -> dict[str, str]:
    pair = kms.generate_data_key_pair(
        KeyId=kms_key,
        KeyPairSpec=KEY_PAIR_SPEC,
        # Recorded by CloudTrail, and the only context in which this function may ask for a key.
        EncryptionContext={"domain": domain, "selector": selector},
    )
    public = base64.b64encode(pair["PublicKey"]).decode()
    private = "\n".join(textwrap.wrap(base64.b64encode(pair["PrivateKeyPlaintext"]).decode(), 64))
    return {
        "domain": domain,
        "selector": selector,
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{private}\n-----END PRIVATE KEY-----\n",
        "record": _txt_value(f"v=DKIM1; k=rsa; p={public}"),
    }


def _txt_value(text: str) -> str:
    starts = range(0, len(text), LONGEST_TXT_STRING)
    return " ".join(f'"{text[start : start + LONGEST_TXT_STRING]}"' for start in starts)
