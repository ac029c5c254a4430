"""A cell: one mail host and the queue that outlives it, in one availability zone."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

import user_data
from stacks.acknowledgement import acknowledge
from stacks.dkim_keys import via_secrets_manager
from stacks.environment import Environment
from stacks.submission import Submission

# The host installs packages and tests itself before it signals.
START_TIMEOUT = cdk.Duration.minutes(15)
CELL_TAG = "postern:cell"
# Debian's images call their root device so.
ROOT_DEVICE = "/dev/xvda"
ROOT_VOLUME_GIB = 8


class MailCell(Construct):
    """An Auto Scaling group of one, its launch template, its role and its retained queue volume.

    A failed host, a new image and changed user-data all take the same road: the old host ends, a
    new one starts and attaches the queue. Two never run at once, because a volume has one host.

    group: what the next cell's group depends on, so that only one host is replaced at a time.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Environment,
        zone: str,
        vpc: ec2.IVpc,
        subnet: ec2.ISubnet,
        security_group: ec2.ISecurityGroup,
        image: ec2.IMachineImage,
        dkim_secret_arn: str,
        dkim_encryption_key: kms.IKey,
        log_group: logs.ILogGroup,
        submission: Submission | None,
    ) -> None:
        super().__init__(scope, construct_id)
        cell = f"{settings.name}/{zone}"
        # Known beforehand: user-data names the resource to signal, which is made from user-data.
        group_id = "MailHost" + zone.title().replace("-", "")

        queue_volume = _queue_volume(self, settings, zone)
        host = user_data.HostSettings(
            region=settings.region,
            sending_domain=settings.sending_domain,
            postmaster=settings.postmaster,
            dkim_selector=settings.dkim.signing,
            dkim_secret_arn=dkim_secret_arn,
            queue_volume_id=queue_volume.volume_id,
            queue_volume_gib=settings.host.queue_volume_gib,
            log_group_name=log_group.log_group_name,
            stack_id=cdk.Stack.of(self).stack_id,
            signal_resource=group_id,
            architecture=settings.host.architecture,
            suppression_days=settings.suppressions.days,
            warm_up=settings.warm_up.as_host_setting if settings.warm_up else None,
            extra_user_data=settings.host.read_extra_user_data(),
            clients=submission.host_settings if submission else None,
        )
        host_files = _host_files(self, user_data.archive(host))

        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        _allow_fetching(role, host_files)
        _allow_reading_the_signing_key(role, dkim_secret_arn, dkim_encryption_key)
        _allow_attaching(role, queue_volume, cell)
        _allow_logging(role, log_group)
        _allow_systems_manager(role)

        launch_template = ec2.LaunchTemplate(
            self,
            "LaunchTemplate",
            instance_type=ec2.InstanceType(settings.host.instance_type),
            machine_image=image,
            role=role,
            security_group=security_group,
            associate_public_ip_address=False,
            require_imdsv2=True,
            http_put_response_hop_limit=1,
            block_devices=[
                ec2.BlockDevice(
                    device_name=ROOT_DEVICE,
                    volume=ec2.BlockDeviceVolume.ebs(
                        ROOT_VOLUME_GIB, volume_type=ec2.EbsDeviceVolumeType.GP3, encrypted=True
                    ),
                )
            ],
            user_data=ec2.UserData.custom(
                user_data.render(
                    host, bucket=host_files.s3_bucket_name, key=host_files.s3_object_key
                )
            ),
        )
        _encrypt_with_awss_own_key(
            launch_template, "LaunchTemplateData.BlockDeviceMappings.0.Ebs.KmsKeyId"
        )
        cdk.Tags.of(launch_template).add("Name", settings.sending_domain)

        self.group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=[subnet]),
            launch_template=launch_template,
            min_capacity=1,
            max_capacity=1,
            # This also allows the role to signal this stack.
            signals=autoscaling.Signals.wait_for_all(timeout=START_TIMEOUT),
            update_policy=autoscaling.UpdatePolicy.rolling_update(
                min_instances_in_service=0,
                max_batch_size=1,
                pause_time=START_TIMEOUT,
                wait_on_resource_signals=True,
            ),
        )
        if submission:
            submission.add_host(self.group, role)
        group_resource = self.group.node.default_child
        assert isinstance(group_resource, autoscaling.CfnAutoScalingGroup)
        group_resource.override_logical_id(group_id)
        # The role's policy too: a host that starts without it would fail its self-test.
        self.group.node.add_dependency(role)
        acknowledge(
            self.group,
            "AwsSolutions-AS3",
            "The group always has one host. A host that fails to start fails the deployment, which "
            "says why.",
        )
        # On the host itself as well, where the role's condition looks for it.
        cdk.Tags.of(self).add(CELL_TAG, cell)


def _queue_volume(cell: Construct, settings: Environment, zone: str) -> ec2.IVolume:
    """The zone's queue: a new volume, or a kept one that the environment names."""
    kept = settings.queue_volumes.get(zone)
    if kept is not None:
        return ec2.Volume.from_volume_attributes(
            cell, "QueueVolume", volume_id=kept.volume_id, availability_zone=zone
        )
    volume = ec2.Volume(
        cell,
        "QueueVolume",
        availability_zone=zone,
        size=cdk.Size.gibibytes(settings.host.queue_volume_gib),
        volume_type=ec2.EbsDeviceVolumeType.GP3,
        encrypted=True,
        # Queued mail exists nowhere else.
        removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
    _encrypt_with_awss_own_key(volume, "KmsKeyId")
    cdk.Tags.of(volume).add("Name", f"{settings.sending_domain} queue {zone}")
    return volume


def _encrypt_with_awss_own_key(construct: Construct, key_property: str) -> None:
    """Name the key that needs no permission, whatever the account's default key for EBS is.

    Under a key of the customer's, neither the host could attach its queue nor the Auto Scaling
    service start a host, unless that key's policy says so. The CDK's own setting takes an ARN.
    """
    resource = construct.node.default_child
    assert isinstance(resource, cdk.CfnResource)
    resource.add_property_override(key_property, "alias/aws/ebs")


def _host_files(cell: Construct, archive: bytes) -> s3_assets.Asset:
    """The archive in the assembly, from where `cdk deploy` uploads it to the bootstrap bucket."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "host-files.tar")
        file.write_bytes(archive)
        return s3_assets.Asset(
            cell,
            "HostFiles",
            path=str(file),
            # The CDK's own hash is the same for CRLF and LF, and what has a known hash is not
            # uploaded again.
            asset_hash=hashlib.sha256(archive).hexdigest(),
        )


def _allow_fetching(role: iam.Role, host_files: s3_assets.Asset) -> None:
    """That one object; `grant_read` would allow the whole bootstrap bucket.

    Under `cdk bootstrap`'s default, AWS's own key of S3, and under the key that its
    --bootstrap-customer-key makes, this is enough: those keys' policies admit who may read the
    object. A key that --bootstrap-kms-key-id named has to be allowed here too (kms:Decrypt).
    """
    object_arn = cdk.Stack.of(role).format_arn(
        service="s3",
        region="",
        account="",
        resource=host_files.s3_bucket_name,
        resource_name=host_files.s3_object_key,
    )
    _allow(role, "FetchHostFiles", ["s3:GetObject"], [object_arn])


def _allow_reading_the_signing_key(
    role: iam.Role, secret_arn: str, encryption_key: kms.IKey
) -> None:
    _allow(role, "ReadSigningKey", ["secretsmanager:GetSecretValue"], [secret_arn])
    # https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html
    conditions = {
        "kms:ViaService": via_secrets_manager(role),
        "kms:EncryptionContext:SecretARN": secret_arn,
    }
    _allow(role, "DecryptSigningKey", ["kms:Decrypt"], [encryption_key.key_arn], conditions)


def _allow_attaching(role: iam.Role, volume: ec2.IVolume, cell: str) -> None:
    stack = cdk.Stack.of(role)
    volume_arn = stack.format_arn(service="ec2", resource="volume", resource_name=volume.volume_id)
    _allow(role, "AttachOwnQueue", ["ec2:AttachVolume"], [volume_arn])
    instances = stack.format_arn(service="ec2", resource="instance", resource_name="*")
    conditions = {f"aws:ResourceTag/{CELL_TAG}": cell}
    _allow(role, "AttachToOwnHost", ["ec2:AttachVolume"], [instances], conditions)
    acknowledge(
        role,
        f"AwsSolutions-IAM5[Resource::{instances}]",
        "A host's id is not known before it starts; the condition on its tag admits this cell's.",
    )


def _allow_logging(role: iam.Role, log_group: logs.ILogGroup) -> None:
    # All that the CloudWatch agent calls when the log group is there and has its retention.
    actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
    _allow(role, "WriteMailLog", actions, [log_group.log_group_arn])


def _allow_systems_manager(role: iam.Role) -> None:
    """Session Manager and Run Command, without AmazonSSMManagedInstanceCore's other rights.

    That policy also reads every parameter of the account. `ec2messages` is the agent's older
    channel, needed only where `ssmmessages` is not allowed:
    https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html
    """
    actions = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    ]
    _allow(role, "BeReachedBySystemsManager", actions, ["*"])
    acknowledge(
        role,
        "AwsSolutions-IAM5[Resource::*]",
        "The agent's own channels, which AWS grants for all resources or none, and its word that a "
        "host is there, whose id is not known before it starts.",
    )


def _allow(
    role: iam.Role,
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    equal: Mapping[str, str] | None = None,
) -> None:
    """One statement; `equal` holds the condition keys that must have exactly that value."""
    role.add_to_policy(
        iam.PolicyStatement(
            sid=sid,
            actions=actions,
            resources=resources,
            conditions={"StringEquals": equal} if equal else None,
        )
    )
