"""DKIM key pairs, one per selector."""

from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stacks.acknowledgement import acknowledge
from stacks.custom_resource_function import CustomResourceFunction
from stacks.sending_address import ENVIRONMENT_TAG

TIMEOUT = cdk.Duration.minutes(2)


@dataclass(frozen=True, kw_only=True)
class DkimKey:
    """One selector's key; both values are tokens.

    secret_arn: where the private half is. record: the public half as a TXT record's value.
    """

    secret_arn: str
    record: str


class DkimKeys(Construct):
    """Makes a key pair per selector; the private half goes from KMS to Secrets Manager only.

    environment: whose keys they are, as the secrets' tag says. log_group: where the function that
    does it logs.
    encryption_key: the KMS key that makes the pairs and encrypts the secrets.
    by_selector: DkimKey by selector.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        domain: str,
        environment: str,
        selectors: Sequence[str],
        removal_policy: cdk.RemovalPolicy,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        self._domain = domain
        self._environment = environment
        self._removal_policy = removal_policy
        self.encryption_key = kms.Key(
            self,
            "EncryptionKey",
            description=f"DKIM private keys of {domain}",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self._function = CustomResourceFunction(
            self,
            "Handler",
            module="dkim_key",
            description="Makes DKIM key pairs",
            timeout=TIMEOUT,
            log_group=log_group,
        )
        self._allow_making_key_pairs()
        self.by_selector = {selector: self._key(selector) for selector in selectors}

    def _key(self, selector: str) -> DkimKey:
        # Not the Secret construct, which always puts a generated password in: a secret without a
        # value is how the handler knows that there is no key yet.
        secret = secretsmanager.CfnSecret(
            self,
            f"PrivateKey-{selector}",
            description=f"DKIM private key {selector}._domainkey.{self._domain}",
            kms_key_id=self.encryption_key.key_arn,
        )
        # When the identity is kept, so is the secret of a selector that left the settings. Delete
        # it by hand when no mail that it signed is under way any more.
        secret.apply_removal_policy(self._removal_policy)
        # By which the doctor may read of it, since CloudFormation makes its name.
        cdk.Tags.of(secret).add(ENVIRONMENT_TAG, self._environment)
        acknowledge(
            secret,
            "AwsSolutions-SMG4",
            "A DKIM key is replaced by adding a selector, never under the same name: receivers may "
            "still verify mail that the old key signed.",
        )
        self._allow_storing(secret)
        key = cdk.CustomResource(
            self,
            selector,
            resource_type="Custom::DkimKey",
            service_token=self._function.service_token,
            service_timeout=TIMEOUT.plus(cdk.Duration.minutes(1)),
            properties={
                "Domain": self._domain,
                "Selector": selector,
                "KmsKeyId": self.encryption_key.key_arn,
                "SecretArn": secret.ref,
            },
        )
        return DkimKey(secret_arn=secret.ref, record=key.get_att_string("Record"))

    def _allow_making_key_pairs(self) -> None:
        self._function.role.add_to_policy(
            iam.PolicyStatement(
                sid="MakeKeyPairs",
                actions=["kms:GenerateDataKeyPair"],
                resources=[self.encryption_key.key_arn],
                conditions={
                    "StringEquals": {
                        "kms:DataKeyPairSpec": "RSA_2048",
                        "kms:EncryptionContext:domain": self._domain,
                    }
                },
            )
        )
        self._function.role.add_to_policy(
            iam.PolicyStatement(
                sid="EncryptSecrets",
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=[self.encryption_key.key_arn],
                conditions={"StringEquals": {"kms:ViaService": via_secrets_manager(self)}},
            )
        )

    def _allow_storing(self, secret: secretsmanager.CfnSecret) -> None:
        self._function.role.add_to_policy(
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
                resources=[secret.ref],
            )
        )


def via_secrets_manager(scope: Construct) -> str:
    """The value of `kms:ViaService` when Secrets Manager uses a key on a caller's behalf."""
    return f"secretsmanager.{cdk.Stack.of(scope).region}.amazonaws.com"
