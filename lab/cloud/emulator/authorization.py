"""IAM decisions where ministack leaves them open.

With ``AUTH=true`` ministack 1.5.33 verifies signatures, gives Lambda functions a session of their
role, and evaluates a role's policies, session policies and KMS key policies. It

- checks AttachVolume on the instance only, and knows no tags of EC2's resources,
- checks Run Command's SendCommand on nothing in particular, neither document nor instances,
- takes a session's own ARN for aws:PrincipalArn, which is the ARN of its role,
- knows no condition keys of KMS, and never asks KMS on behalf of Secrets Manager,
- takes a call that names a stack, not its id, for one on stack/NAME/*, which no policy with the id
  allows; AWS was seen to do so too, so a host names its stack by the id,
- lets pass what it cannot name: here such a call is denied to everybody but administrators.

What an action is checked on is the Service Authorization Reference's:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from lab.cloud.emulator.upstream import (
    Parameters,
    Response,
    app,
    ec2,
    iam_actions,
    iam_evaluator,
    parameter,
    responses,
    router,
    secrets_manager,
    ssm,
    tagging,
    wrap,
)

UNKNOWN_OPERATION = "OperationUnknownToTheLab"
"""Stands for an operation in a denial: teach ``extract_iam_action`` its name."""

_KINDS_BY_PREFIX = {"i": "instance", "eipalloc": "elastic-ip", "vol": "volume"}

_log = logging.getLogger("ministack")


def install() -> None:
    if not app.AUTH:
        raise RuntimeError(
            "ministack enforces IAM policies only with AUTH=true in its environment."
        )
    # Hosts speak TLS as far as the lab's front; what comes from this machine never leaves it.
    wrap(vars(app), "pin_request_origin", lambda original, ip, _: original(ip, True))
    wrap(vars(iam_actions), "extract_iam_action", _action)
    # The one place where ministack checks an EC2 call on further resources.
    wrap(vars(iam_actions), "verified_access_resource_arns", _further_ec2_resources)
    # ... and where it collects condition keys of any service.
    wrap(vars(iam_actions), "request_tag_context", _condition_keys)
    wrap(vars(iam_evaluator), "_resolve_condition_key", _condition_key)
    wrap(vars(iam_actions), "access_denied_response", _denial)
    wrap(vars(secrets_manager), "handle_request", _use_kms)
    wrap(vars(iam_actions), "extract_resource_arn", _resource)
    wrap(vars(ssm), "handle_request", _use_instances)
    tagging._RESOURCE_TAG_COLLECTORS["ec2"] = _tagged_ec2_resources


def _action(original: Callable[..., str | None], service: str, *request: object) -> str:
    return original(service, *request) or f"{service}:{UNKNOWN_OPERATION}"


def _further_ec2_resources(
    original: Callable[..., list[str]], parameters: Parameters, region: str, account: str
) -> list[str]:
    """Every resource that an EC2 call is checked on; ministack has checked the first already."""
    if parameter(parameters, "Action") != "AttachVolume":
        return original(parameters, region, account)
    ids = [parameter(parameters, name) for name in ("InstanceId", "VolumeId")]
    return [_ec2_arn(resource_id, region, account) for resource_id in ids]


def _tagged_ec2_resources() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The ARN and the tags of every instance, Elastic IP and volume of the request's account."""
    for resource_id, tags in ec2._tags.items():
        if resource_id.partition("-")[0] in _KINDS_BY_PREFIX:
            yield _ec2_arn(resource_id, responses.get_region(), responses.get_account_id()), tags


def _ec2_arn(resource_id: str, region: str, account: str) -> str:
    kind = _KINDS_BY_PREFIX[resource_id.partition("-")[0]]
    return f"arn:aws:ec2:{region}:{account}:{kind}/{resource_id}"


def _condition_keys(
    original: Callable[..., dict[str, Any]],
    service: str,
    action: str,
    body: bytes,
    parameters: Parameters,
) -> dict[str, Any]:
    keys = original(service, action, body, parameters)
    if service != "kms":
        return keys
    request = json.loads(body)
    if "KeyPairSpec" in request:
        keys["kms:DataKeyPairSpec"] = request["KeyPairSpec"]
    return {**keys, **_encryption_context(request.get("EncryptionContext", {}))}


def _condition_key(original: Callable[..., Any], key: str, context: Any) -> Any:
    """A condition key's value; of a role's session aws:PrincipalArn is the role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    value = original(key, context)
    if key.lower() == "aws:principalarn" and ":assumed-role/" in value:
        account, name = value.split(":")[4], value.split("/")[1]
        return f"arn:aws:iam::{account}:role/{name}"
    return value


def _encryption_context(context: dict[str, str]) -> dict[str, str]:
    return {f"kms:EncryptionContext:{key}": value for key, value in context.items()}


async def _use_kms(
    original: Callable[..., Awaitable[Response]],
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query_parameters: dict[str, Any],
) -> Response:
    """Secrets Manager's calls of KMS, made with the permissions of its own caller.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html
    """
    operation = _operation(headers)
    if operation not in ("GetSecretValue", "PutSecretValue"):
        return await original(method, path, headers, body, query_parameters)
    request = json.loads(body)
    _, secret = secrets_manager._resolve(request["SecretId"])
    if secret is None or not secret.get("KmsKeyId"):
        return await original(method, path, headers, body, query_parameters)

    def denied(action: str) -> bool:
        region = responses.get_region()
        refusal = iam_evaluator.enforce(
            router.extract_access_key_id(headers, query_parameters),
            action,
            "kms",
            region,
            resource_arn=secret["KmsKeyId"],
            service_context={
                "kms:ViaService": f"secretsmanager.{region}.amazonaws.com",
                **_encryption_context({"SecretARN": secret["ARN"]}),
            },
        )
        if refusal:
            _log.warning("DENIED %s by way of %s: %s", action, operation, refusal)
        return refusal is not None

    if operation == "PutSecretValue":
        # A version that exists already is compared with what is put.
        exists = request.get("ClientRequestToken") in secret["Versions"]
        if denied("kms:GenerateDataKey") or (exists and denied("kms:Decrypt")):
            return _no_access_to_kms()
    answer = await original(method, path, headers, body, query_parameters)
    if operation == "GetSecretValue" and answer[0] == 200 and denied("kms:Decrypt"):
        return _no_access_to_kms()
    return answer


def _no_access_to_kms() -> Response:
    answer: Response = responses.error_response_json(
        "AccessDeniedException", "Access to KMS is not allowed", 400
    )
    return answer


def _resource(
    original: Callable[..., str],
    service: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    *rest: Any,
) -> str:
    """What a call is checked on; of SendCommand the document, which is AWS's."""
    if service == "ssm" and _operation(headers) == "SendCommand":
        name = json.loads(body).get("DocumentName", "").rpartition("/")[2]
        return f"arn:aws:ssm:{responses.get_region()}::document/{name}"
    return original(service, method, path, headers, body, *rest)


async def _use_instances(
    original: Callable[..., Awaitable[Response]],
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query_parameters: dict[str, Any],
) -> Response:
    """SendCommand is checked on each instance too, whose tags are Systems Manager's own keys.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/run-command-setting-up.html
    """
    instances = (
        json.loads(body).get("InstanceIds", []) if _operation(headers) == "SendCommand" else []
    )
    for instance in instances:
        tags = {tag["Key"]: tag["Value"] for tag in ec2._tags.get(instance, [])}
        refusal = iam_evaluator.enforce(
            router.extract_access_key_id(headers, query_parameters),
            "ssm:SendCommand",
            "ssm",
            responses.get_region(),
            resource_arn=_ec2_arn(instance, responses.get_region(), responses.get_account_id()),
            service_context={f"ssm:resourceTag/{key}": value for key, value in tags.items()},
        )
        if refusal:
            _log.warning("DENIED ssm:SendCommand on %s: %s", instance, refusal)
            denial: Response = responses.error_response_json(
                "AccessDeniedException",
                f"not authorized to perform ssm:SendCommand on {instance}",
                400,
            )
            return denial
    return await original(method, path, headers, body, query_parameters)


def _operation(headers: dict[str, str]) -> str:
    return headers.get("x-amz-target", "").rpartition(".")[2]


def _denial(
    original: Callable[..., Response],
    service: str,
    action: str,
    principal: str,
    *rest: object,
    **more: object,
) -> Response:
    _log.warning("DENIED %s to %s on %s", action, principal, more.get("resource_arn", "*"))
    return original(service, action, principal, *rest, **more)
