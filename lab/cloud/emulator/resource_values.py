"""Values of new resources, where ministack 1.5.33 differs from CloudFormation."""

from collections.abc import Callable

from lab.cloud.emulator.upstream import (
    RESOURCE_TYPES,
    Properties,
    Resource,
    ec2,
    secrets_manager,
    wrap,
)


def install() -> None:
    secret = RESOURCE_TYPES["AWS::SecretsManager::Secret"]
    wrap(secret, "create", _create_secret)
    wrap(secret, "update", _update_secret)
    wrap(secret, "delete", _delete_secret)
    for operation in ("create", "update"):
        wrap(RESOURCE_TYPES["AWS::EC2::VPC"], operation, _vpc)


def _create_secret(
    original: Callable[..., Resource],
    logical_id: str,
    properties: Properties,
    stack_name: str,
) -> Resource:
    """``Ref`` of a secret is its ARN, not its name, and one without a value has no version."""
    name, attributes = original(logical_id, properties, stack_name)
    if not {"SecretString", "GenerateSecretString"} & set(properties):
        secrets_manager._secrets[name]["Versions"].clear()
    return attributes["Arn"], attributes


def _update_secret(
    original: Callable[..., Resource],
    physical_id: str,
    *arguments: object,
) -> Resource:
    _, attributes = original(_secret_name(physical_id), *arguments)
    return attributes["Arn"], attributes


def _delete_secret(original: Callable[..., None], physical_id: str, properties: Properties) -> None:
    original(_secret_name(physical_id), properties)


def _secret_name(arn: str) -> str:
    return next(
        (name for name, secret in secrets_manager._secrets.items() if secret["ARN"] == arn), arn
    )


def _vpc(original: Callable[..., Resource], *arguments: object) -> Resource:
    """``CidrBlock`` of a VPC, which CDK's ``vpc_cidr_block`` asks for."""
    vpc_id, attributes = original(*arguments)
    return vpc_id, {**attributes, "CidrBlock": ec2._vpcs[vpc_id]["CidrBlock"]}
