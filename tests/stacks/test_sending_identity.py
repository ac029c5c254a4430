"""DNS vouches for the addresses, and the identity outlives its stack."""

import json
from typing import Any

import pytest

from review.snapshots import joined
from tests.stacks.conftest import (
    Synthesise,
    Templates,
    dkim_encryption_key,
    records,
    resources,
)

STACK = "SendingIdentity"
NAME = "mail.example.com."
EXISTING_ADDRESS = (
    "[tags]",
    """\
[elastic_ips.us-east-1b]
allocation_id = "eipalloc-0123456789abcdef0"
address = "203.0.113.10"
[tags]""",
)


def _elastic_ips(templates: Templates) -> list[str]:
    return list(resources(templates[STACK], "AWS::EC2::EIP"))


def test_there_are_exactly_the_records_that_a_sender_needs(example: Templates) -> None:
    """No MX among them: the domain receives nothing."""
    assert set(records(example[STACK])) == {
        (NAME, "A"),
        (NAME, "TXT"),
        (f"s2026a._domainkey.{NAME}", "TXT"),
        (f"s2026b._domainkey.{NAME}", "TXT"),
        (f"_dmarc.{NAME}", "TXT"),
    }


def test_the_a_record_names_every_elastic_ip(example: Templates) -> None:
    values = records(example[STACK])[NAME, "A"]["ResourceRecords"]
    expected = [{"Fn::GetAtt": [eip, "PublicIp"]} for eip in _elastic_ips(example)]
    assert len(expected) == 2
    assert values == expected


def test_spf_names_every_elastic_ip_in_one_string_and_nobody_else(example: Templates) -> None:
    first, second = _elastic_ips(example)
    (value,) = records(example[STACK])[NAME, "TXT"]["ResourceRecords"]
    assert joined(value) == f'"v=spf1 ip4:<{first}.PublicIp> ip4:<{second}.PublicIp> -all"'


def test_each_selectors_record_is_what_its_key_says(example: Templates) -> None:
    keys = resources(example[STACK], "Custom::DkimKey")
    assert {key["Properties"]["Selector"] for key in keys.values()} == {"s2026a", "s2026b"}
    for logical_id, key in keys.items():
        name = f"{key['Properties']['Selector']}._domainkey.{NAME}"
        value = records(example[STACK])[name, "TXT"]["ResourceRecords"]
        # Alone: the handler has quoted and split it already.
        assert value == [{"Fn::GetAtt": [logical_id, "Record"]}]


def test_dmarc_has_only_tags_of_rfc_9989(example: Templates) -> None:
    (value,) = records(example[STACK])[f"_dmarc.{NAME}", "TXT"]["ResourceRecords"]
    tags = [tag.split("=")[0] for tag in value.strip('"').split("; ")]
    assert tags == ["v", "p", "adkim", "aspf", "rua"]


def test_reverse_dns_of_every_address_comes_after_the_a_record(example: Templates) -> None:
    (a_record,) = (
        logical_id
        for logical_id, record in resources(example[STACK], "AWS::Route53::RecordSet").items()
        if record["Properties"]["Type"] == "A"
    )
    reverse = resources(example[STACK], "Custom::ReverseDns").values()
    assert [record["Properties"]["AllocationId"] for record in reverse] == [
        {"Fn::GetAtt": [eip, "AllocationId"]} for eip in _elastic_ips(example)
    ]
    for record in reverse:
        assert record["Properties"]["DomainName"] == "mail.example.com"
        assert a_record in record["DependsOn"]


def test_records_go_with_the_stack(example: Templates) -> None:
    """One that stayed would make the next deployment fail."""
    for record in resources(example[STACK], "AWS::Route53::RecordSet").values():
        assert record.get("DeletionPolicy", "Delete") == "Delete"


KEPT = ["AWS::EC2::EIP", "Custom::ReverseDns", "AWS::KMS::Key", "AWS::SecretsManager::Secret"]


def _identity(templates: Templates, kind: str) -> list[dict[str, Any]]:
    """The resources of that kind that belong to the identity: not the key of the functions' log."""
    found = resources(templates[STACK], kind)
    if kind == "AWS::KMS::Key":
        return [found[dkim_encryption_key(templates[STACK])]]
    return list(found.values())


@pytest.mark.parametrize("kind", KEPT)
def test_the_identity_is_kept_once_it_was_made(example: Templates, kind: str) -> None:
    kept = _identity(example, kind)
    assert kept
    for resource in kept:
        assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
        assert resource["UpdateReplacePolicy"] == "Retain"


def test_a_trial_goes_with_its_stack(synthesise: Synthesise) -> None:
    trial = synthesise(("keep_identity = true", "keep_identity = false"))
    for kind in KEPT:
        for resource in _identity(trial, kind):
            assert resource["DeletionPolicy"] == "Delete"


def test_an_existing_address_takes_the_place_of_a_new_one(synthesise: Synthesise) -> None:
    templates = synthesise(EXISTING_ADDRESS)
    identity = templates[STACK]
    (new,) = resources(identity, "AWS::EC2::EIP")
    (spf,) = records(identity)[NAME, "TXT"]["ResourceRecords"]
    assert joined(spf) == f'"v=spf1 ip4:<{new}.PublicIp> ip4:203.0.113.10 -all"'
    assert "203.0.113.10" in records(identity)[NAME, "A"]["ResourceRecords"]
    assert "eipalloc-0123456789abcdef0" in exported(templates).values()


def exported(templates: Templates) -> dict[str, str]:
    """Each export of SendingIdentity."""
    return {
        output["Export"]["Name"]: joined(output["Value"])
        for output in templates[STACK]["Outputs"].values()
        if "Export" in output
    }


@pytest.mark.parametrize("changes", [(), (EXISTING_ADDRESS,)], ids=["new", "existing"])
def test_no_record_can_drop_an_address_while_a_nat_gateway_sends_from_it(
    synthesise: Synthesise, changes: tuple[tuple[str, str], ...]
) -> None:
    """CloudFormation refuses to remove an export in use, and rolls the records back."""
    templates = synthesise(*changes)
    gateways = resources(templates["Network"], "AWS::EC2::NatGateway").values()
    used = [
        exported(templates)[g["Properties"]["AllocationId"]["Fn::ImportValue"]] for g in gateways
    ]
    fewer = synthesise(('["us-east-1a", "us-east-1b"]', '["us-east-1a"]'))
    assert len(set(used)) == 2
    assert len([allocation for allocation in used if allocation in exported(fewer).values()]) == 1


def test_receivers_know_a_new_address_before_its_nat_gateway_can_be_there(
    example: Templates,
) -> None:
    """They may remember a record for its TTL; a NAT gateway takes AWS more than a minute."""
    found = records(example[STACK])
    assert {found[NAME, kind]["TTL"] for kind in ("A", "TXT")} == {"60"}


def test_reverse_dns_of_an_existing_address_is_never_reset(synthesise: Synthesise) -> None:
    """Not even by a trial, whose own addresses go."""
    trial = synthesise(EXISTING_ADDRESS, ("keep_identity = true", "keep_identity = false"))[STACK]
    policies = {
        joined(record["Properties"]["AllocationId"]): record["DeletionPolicy"]
        for record in resources(trial, "Custom::ReverseDns").values()
    }
    assert policies.pop("eipalloc-0123456789abcdef0") == "Retain"
    assert list(policies.values()) == ["Delete"]


def test_a_secret_has_no_value_but_the_handlers(example: Templates) -> None:
    """Its absence is how the handler knows that there is no key yet."""
    for secret in resources(example[STACK], "AWS::SecretsManager::Secret").values():
        assert set(secret["Properties"]) == {"Description", "KmsKeyId", "Tags"}


def test_the_public_half_is_all_that_leaves_the_handler(example: Templates) -> None:
    for key in resources(example[STACK], "Custom::DkimKey"):
        used = json.dumps(example[STACK]).count(f'"Fn::GetAtt": ["{key}", ')
        assert used == json.dumps(example[STACK]).count(f'"Fn::GetAtt": ["{key}", "Record"]') == 1


def test_every_selector_can_begin_to_sign_while_the_old_hosts_are_deployed(
    example: Templates, synthesise: Synthesise
) -> None:
    """CloudFormation refuses to remove an export in use, so switching must not remove one."""
    switched = synthesise(('signing = "s2026a"', 'signing = "s2026b"'))
    assert switched[STACK]["Outputs"] == example[STACK]["Outputs"]
    assert switched["MailHosts"] != example["MailHosts"]


def test_the_handlers_may_do_their_task_only(example: Templates) -> None:
    allowed = {
        action
        for policy in resources(example[STACK], "AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in _listed(statement["Action"])
    }
    assert allowed == {
        "ec2:DescribeAddressesAttribute",
        "ec2:ModifyAddressAttribute",
        "ec2:ResetAddressAttribute",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "kms:GenerateDataKeyPair",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
    }


def test_reverse_dns_can_be_given_up_after_its_address_has_left_the_settings(
    example: Templates,
) -> None:
    # CloudFormation changes the policy first and asks for the reset later: a list of the addresses
    # of now would refuse.
    policies = resources(example[STACK], "AWS::IAM::Policy").values()
    (statement,) = [
        statement
        for policy in policies
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Action"] == "ec2:ResetAddressAttribute"
    ]
    assert "Fn::GetAtt" not in json.dumps(statement)
    ((_, tags),) = statement["Condition"].items()
    ((key, value),) = tags.items()
    for address in resources(example[STACK], "AWS::EC2::EIP").values():
        assert {"Key": key.removeprefix("aws:ResourceTag/"), "Value": value} in address[
            "Properties"
        ]["Tags"]


def test_outputs_tell_what_the_port_25_request_asks_for(example: Templates) -> None:
    outputs = example[STACK]["Outputs"]
    assert outputs["SendingDomain"]["Value"] == "mail.example.com"
    addresses = joined(outputs["ElasticIps"]["Value"]).split(", ")
    assert addresses == [f"<{eip}.PublicIp>" for eip in _elastic_ips(example)]


def _listed(actions: str | list[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else actions
