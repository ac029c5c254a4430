"""A host that nobody can reach, that may do little, and whose queue outlives it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from review.host_files import File, settings_of, unpacked
from review.snapshots import archive_of, joined, user_data_of
from tests.stacks.conftest import (
    AssemblyOf,
    Synthesise,
    Templates,
    dkim_encryption_key,
    only,
    resources,
    statements,
)

STACK = "MailHosts"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
MAX_USER_DATA_BYTES = 16384


def _launch_data(templates: Templates) -> list[dict[str, Any]]:
    hosts = resources(templates[STACK], "AWS::EC2::LaunchTemplate").values()
    return [host["Properties"]["LaunchTemplateData"] for host in hosts]


def _user_data(templates: Templates) -> list[str]:
    return [
        user_data_of(host)
        for host in resources(templates[STACK], "AWS::EC2::LaunchTemplate").values()
    ]


def test_nothing_comes_in(example: Templates) -> None:
    assert (
        "SecurityGroupIngress" not in only(example[STACK], "AWS::EC2::SecurityGroup")["Properties"]
    )
    assert not resources(example[STACK], "AWS::EC2::SecurityGroupIngress")


def test_only_smtp_and_http_go_out(example: Templates) -> None:
    rules = only(example[STACK], "AWS::EC2::SecurityGroup")["Properties"]["SecurityGroupEgress"]
    ports = [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in rules]
    assert ports == [("tcp", 25, 25), ("tcp", 80, 80), ("tcp", 443, 443)]
    assert not resources(example[STACK], "AWS::EC2::SecurityGroupEgress")


def test_instance_metadata_needs_a_token_and_stays_on_the_host(example: Templates) -> None:
    for host in _launch_data(example):
        assert host["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_a_host_has_no_public_address_and_no_key_pair(example: Templates) -> None:
    (security_group,) = resources(example[STACK], "AWS::EC2::SecurityGroup")
    for host in _launch_data(example):
        assert "KeyName" not in host
        assert host["NetworkInterfaces"] == [
            {
                "AssociatePublicIpAddress": False,
                "DeviceIndex": 0,
                "Groups": [{"Fn::GetAtt": [security_group, "GroupId"]}],
            }
        ]


def test_both_volumes_are_encrypted(example: Templates) -> None:
    for host in _launch_data(example):
        for device in host["BlockDeviceMappings"]:
            assert device["Ebs"]["Encrypted"] is True
            assert device["Ebs"]["KmsKeyId"] == "alias/aws/ebs"  # whatever the account's default
    for volume in resources(example[STACK], "AWS::EC2::Volume").values():
        assert volume["Properties"]["Encrypted"] is True
        assert volume["Properties"]["KmsKeyId"] == "alias/aws/ebs"


def test_the_queue_outlives_the_stack(example: Templates) -> None:
    volumes = resources(example[STACK], "AWS::EC2::Volume")
    assert len(volumes) == 2
    for volume in volumes.values():
        assert volume["DeletionPolicy"] == "RetainExceptOnCreate"
        assert volume["UpdateReplacePolicy"] == "Retain"
        assert volume["Properties"]["Size"] == 20


def test_a_kept_queue_is_taken_up_again(synthesise: Synthesise) -> None:
    kept = "vol-0123456789abcdef0"
    templates = synthesise(
        ("[tags]", f'[queue_volumes.us-east-1a]\nvolume_id = "{kept}"\n\n[tags]')
    )
    (volume,) = resources(templates[STACK], "AWS::EC2::Volume").values()
    assert volume["Properties"]["AvailabilityZone"] == "us-east-1b"
    first, second = _user_data(templates)
    assert f"QUEUE_VOLUME_ID={kept}\n" in first
    assert kept not in second
    first_role, second_role = resources(templates[STACK], "AWS::IAM::Role")
    arn = f"arn:aws:ec2:us-east-1:111122223333:volume/{kept}"
    assert arn in [statement["Resource"] for statement in statements(templates[STACK], first_role)]
    assert kept not in json.dumps(statements(templates[STACK], second_role))


def test_a_deployment_is_green_only_when_the_host_signalled(example: Templates) -> None:
    for group in resources(example[STACK], "AWS::AutoScaling::AutoScalingGroup").values():
        assert group["CreationPolicy"] == {"ResourceSignal": {"Count": 1, "Timeout": "PT15M"}}
        update = group["UpdatePolicy"]["AutoScalingRollingUpdate"]
        assert update["WaitOnResourceSignals"] is True
        assert update["PauseTime"] == "PT15M"


def test_two_hosts_never_share_a_queue(example: Templates) -> None:
    for group in resources(example[STACK], "AWS::AutoScaling::AutoScalingGroup").values():
        assert (group["Properties"]["MinSize"], group["Properties"]["MaxSize"]) == ("1", "1")
        update = group["UpdatePolicy"]["AutoScalingRollingUpdate"]
        assert (update["MinInstancesInService"], update["MaxBatchSize"]) == (0, 1)


def test_a_host_runs_in_its_queues_zone(example: Templates) -> None:
    """The n-th group is in the n-th private subnet, whose zone the n-th volume has."""
    subnets = {
        logical_id: subnet["Properties"]["AvailabilityZone"]
        for logical_id, subnet in resources(example["Network"], "AWS::EC2::Subnet").items()
    }
    exports = {
        output["Export"]["Name"]: joined(output["Value"]).strip("<>")
        for output in example["Network"]["Outputs"].values()
        if "Export" in output
    }
    groups = resources(example[STACK], "AWS::AutoScaling::AutoScalingGroup").values()
    volumes = resources(example[STACK], "AWS::EC2::Volume").values()
    for group, volume in zip(groups, volumes, strict=True):
        (subnet,) = group["Properties"]["VPCZoneIdentifier"]
        zone = subnets[exports[subnet["Fn::ImportValue"]]]
        assert zone == volume["Properties"]["AvailabilityZone"]
        assert {
            "Key": "postern:cell",
            "Value": f"example/{zone}",
            "PropagateAtLaunch": True,
        } in group["Properties"]["Tags"]


def test_the_host_signals_its_own_group(example: Templates) -> None:
    groups = resources(example[STACK], "AWS::AutoScaling::AutoScalingGroup")
    for group, document in zip(groups, _user_data(example), strict=True):
        assert f"SIGNAL_RESOURCE={group}\n" in document
        # The role's policy names the stack by its id; a call by name is another resource to IAM.
        assert "STACK_ID=<AWS::StackId>\n" in document


@pytest.mark.parametrize("zones", ['["us-east-1a"]', '["us-east-1a", "us-east-1b", "us-east-1c"]'])
def test_another_zones_coming_or_going_changes_nothing_of_a_cell_that_stays(
    example: Templates, synthesise: Synthesise, zones: str
) -> None:
    """So neither replaces its host."""
    other = synthesise(('["us-east-1a", "us-east-1b"]', zones))
    before, after = (templates[STACK]["Resources"] for templates in (example, other))
    staying = before.keys() & after.keys()
    assert sum("useast1a" in name.lower() for name in staying) >= 6
    assert {name: after[name] for name in staying} == {name: before[name] for name in staying}


def test_one_host_is_replaced_at_a_time(example: Templates) -> None:
    first, second = resources(example[STACK], "AWS::AutoScaling::AutoScalingGroup").items()
    assert first[0] in second[1]["DependsOn"]
    assert second[0] not in first[1]["DependsOn"]


def test_a_larger_queue_volume_replaces_the_host(
    example: Templates, synthesise: Synthesise
) -> None:
    """Only a host that boots makes the file system as large as its volume."""
    larger = synthesise(("queue_volume_gib = 20", "queue_volume_gib = 40"))
    for before, after in zip(_user_data(example), _user_data(larger), strict=True):
        assert before != after


def test_a_host_waits_for_its_roles_policy(example: Templates) -> None:
    policies = resources(example[STACK], "AWS::IAM::Policy")
    groups = resources(example[STACK], "AWS::AutoScaling::AutoScalingGroup")
    for policy, group in zip(policies, groups.values(), strict=True):
        assert policy in group["DependsOn"]


def test_the_role_may_do_what_a_host_needs_and_nothing_else(example: Templates) -> None:
    roles = resources(example[STACK], "AWS::IAM::Role")
    volumes = resources(example[STACK], "AWS::EC2::Volume")
    (log_group,) = resources(example[STACK], "AWS::Logs::LogGroup")
    signing, encryption = _imported_keys(example)
    zones = ["us-east-1a", "us-east-1b"]
    (key,) = {settings_of(document)["HOST_FILES_KEY"] for document in _user_data(example)}
    for (role, properties), volume, zone in zip(roles.items(), volumes, zones, strict=True):
        assert "ManagedPolicyArns" not in properties["Properties"]
        arn = "arn:aws:ec2:us-east-1:111122223333"
        assert statements(example[STACK], role) == [
            {
                "Sid": "FetchHostFiles",
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::cdk-hnb659fds-assets-111122223333-us-east-1/{key}",
            },
            {
                "Sid": "ReadSigningKey",
                "Effect": "Allow",
                "Action": "secretsmanager:GetSecretValue",
                "Resource": signing,
            },
            {
                "Sid": "DecryptSigningKey",
                "Effect": "Allow",
                "Action": "kms:Decrypt",
                "Resource": encryption,
                "Condition": {
                    "StringEquals": {
                        "kms:ViaService": "secretsmanager.us-east-1.amazonaws.com",
                        "kms:EncryptionContext:SecretARN": signing,
                    }
                },
            },
            {
                "Sid": "AttachOwnQueue",
                "Effect": "Allow",
                "Action": "ec2:AttachVolume",
                "Resource": {"Fn::Join": ["", [f"{arn}:volume/", {"Ref": volume}]]},
            },
            {
                "Sid": "AttachToOwnHost",
                "Effect": "Allow",
                "Action": "ec2:AttachVolume",
                "Resource": f"{arn}:instance/*",
                "Condition": {"StringEquals": {"aws:ResourceTag/postern:cell": f"example/{zone}"}},
            },
            {
                "Sid": "WriteMailLog",
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": {"Fn::GetAtt": [log_group, "Arn"]},
            },
            {
                "Sid": "BeReachedBySystemsManager",
                "Effect": "Allow",
                "Action": [
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                "Resource": "*",
            },
            {
                "Effect": "Allow",
                "Action": "cloudformation:SignalResource",
                "Resource": {"Ref": "AWS::StackId"},
            },
        ]


def test_the_tag_that_admits_the_queue_is_on_the_instance_from_its_start(
    example: Templates,
) -> None:
    for host, zone in zip(_launch_data(example), ["us-east-1a", "us-east-1b"], strict=True):
        (instance,) = (
            tags["Tags"] for tags in host["TagSpecifications"] if tags["ResourceType"] == "instance"
        )
        assert {"Key": "postern:cell", "Value": f"example/{zone}"} in instance


def test_the_mail_log_is_kept_three_months_under_a_key_of_our_own(example: Templates) -> None:
    log_group = only(example[STACK], "AWS::Logs::LogGroup")["Properties"]
    assert log_group["RetentionInDays"] == 90
    assert "KmsKeyId" in log_group


@pytest.mark.parametrize(
    ("instance_type", "architecture"), [("t3.small", "amd64"), ("t4g.small", "arm64")]
)
def test_the_image_follows_the_instance_type(
    synthesise: Synthesise, instance_type: str, architecture: str
) -> None:
    templates = synthesise(('"t3.small"', f'"{instance_type}"'))
    parameter = f"/aws/service/debian/release/13/latest/{architecture}"
    for host in _launch_data(templates):
        assert host["InstanceType"] == instance_type
        image = templates[STACK]["Parameters"][host["ImageId"]["Ref"]]
        assert image["Type"] == "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>"
        assert image["Default"] == parameter
    for document in _user_data(templates):
        assert f"ARCHITECTURE={architecture}\n" in document


def test_user_data_is_far_within_ec2s_limit_with_the_longest_values(
    synthesise: Synthesise,
) -> None:
    longest = synthesise(
        ('"mail.example.com"', f'"{"m" * 52}.example.com"'),
        ('"postmaster@example.com"', f'"{"p" * 64}@{".".join(["d" * 60] * 4)}.com"'),
        (
            "[tags]",
            f"[warm_up]\nstart = 2026-12-01\nmessages_a_day = {[9_999_999] * 90}\n[tags]",
        ),
    )
    for host in _launch_data(longest):
        _separator, parts = host["UserData"]["Fn::Base64"]["Fn::Join"]
        assert any("WARM_UP=2026-12-01:9999999,9999999," in str(part) for part in parts)
        # An ARN, an id or a name that takes a token's place is shorter than 256 characters.
        size = sum(len(part.encode()) if isinstance(part, str) else 256 for part in parts)
        assert size <= MAX_USER_DATA_BYTES * 3 / 4


def test_the_archive_is_an_asset_whose_contents_the_user_data_knows(
    assembly_of: AssemblyOf,
) -> None:
    assembly = assembly_of("example")
    (manifest,) = assembly.folder.glob("*/*MailHosts*.assets.json")
    uploads = [
        destination
        for asset in json.loads(manifest.read_text(encoding="utf-8"))["files"].values()
        for destination in asset["destinations"].values()
    ]
    for document in _user_data(assembly.templates):
        settings = settings_of(document)
        archive = archive_of(document, assembly.folder)
        assert settings["HOST_FILES_SHA256"] == hashlib.sha256(archive).hexdigest()
        (upload,) = (one for one in uploads if one["objectKey"] == settings["HOST_FILES_KEY"])
        assert upload["bucketName"] == settings["HOST_FILES_BUCKET"]


def test_synthesis_leaves_no_archive_behind_outside_its_folder(
    synthesise: Synthesise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    synthesise()
    assert not list(elsewhere.iterdir())
    assert list((tmp_path / "cdk.out").glob("asset.*.tar"))


def test_an_archive_that_differs_in_its_line_ends_only_has_another_key(
    synthesise: Synthesise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same key it would not be uploaded, and no host would take the old one."""
    keys = set()
    for contents in (b"\r\n", b"\n"):
        monkeypatch.setattr("user_data.archive", lambda _, contents=contents: contents)
        keys |= {settings_of(text)["HOST_FILES_KEY"] for text in _user_data(synthesise())}
    assert len(keys) == 2


def test_the_owners_script_reaches_the_host_as_it_is(
    synthesise: Synthesise, tmp_path: Path
) -> None:
    (tmp_path / "application.sh").write_text("#!/bin/sh\ninstall-it # now\n", encoding="utf-8")
    templates = synthesise(
        ("queue_volume_gib = 20", 'queue_volume_gib = 20\nextra_user_data = "application.sh"')
    )
    for document in _user_data(templates):
        files = unpacked(archive_of(document, tmp_path / "cdk.out"))
        assert files["/usr/local/lib/postern/extra-user-data"] == File(
            "0700", "#!/bin/sh\ninstall-it # now\n"
        )


def _imported_keys(templates: Templates) -> tuple[dict[str, str], dict[str, str]]:
    """How MailHosts refers to the signing key's secret and to the KMS key."""
    exports = {
        json.dumps(output["Value"]): {"Fn::ImportValue": output["Export"]["Name"]}
        for output in templates["SendingIdentity"]["Outputs"].values()
        if "Export" in output
    }
    identity = templates["SendingIdentity"]
    (signing,) = (
        key["Properties"]["SecretArn"]
        for key in resources(identity, "Custom::DkimKey").values()
        if key["Properties"]["Selector"] == "s2026a"
    )
    encryption = dkim_encryption_key(identity)
    return (
        exports[json.dumps(signing)],
        exports[json.dumps({"Fn::GetAtt": [encryption, "Arn"]})],
    )
