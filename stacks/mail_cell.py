"""A cell: one mail host and the queue that outlives it, in one availability zone."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

import user_data
from stacks.acknowledgement import acknowledge
from stacks.dkim_keys import via_secrets_manager
from stacks.environment import Environment, InvalidEnvironment

# The host installs packages and tests itself before it signals.
START_TIMEOUT = cdk.Duration.minutes(15)
CELL_TAG = "postern:cell"
# Debian's AMIs call their root device so.
ROOT_DEVICE = "/dev/xvda"
ROOT_VOLUME_GIB = 8
# No identifier that stands in user-data (ARN, id, name) is longer once it is known.
LONGEST_TOKEN_VALUE = 256


class MailCell(Construct):
    """An Auto Scaling group of one, its launch template, role and retained queue volume.

    A failed host, a new image and changed user-data all take the same road: the old host ends, a new one
    starts and attaches the same queue. Two never run at once, because a volume has one host.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
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
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        cell = f"{settings.name}/{zone}"
        # Known beforehand, because user-data names the resource to signal and is part of it.
        group_id = "MailHost" + zone.title().replace("-", "")

        queue_volume = ec2.Volume(
            self,
            "QueueVolume",
            availability_zone=zone,
            size=cdk.Size.gibibytes(settings.host.queue_volume_gib),
            volume_type=ec2.EbsDeviceVolumeType.GP3,
            encrypted=True,
            # Queued mail exists nowhere else.
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        cdk.Tags.of(queue_volume).add("Name", f"{settings.sending_domain} queue {zone}")

        self._role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        self._allow_reading_the_signing_key(dkim_secret_arn, dkim_encryption_key)
        self._allow_attaching(queue_volume, cell)
        self._allow_signalling()
        self._allow_logging(log_group)
        self._allow_systems_manager()

        launch_template = ec2.LaunchTemplate(
            self,
            "LaunchTemplate",
            instance_type=ec2.InstanceType(settings.host.instance_type),
            machine_image=image,
            role=self._role,
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
                _render_user_data(
                    stack,
                    settings,
                    dkim_secret_arn=dkim_secret_arn,
                    queue_volume_id=queue_volume.volume_id,
                    log_group_name=log_group.log_group_name,
                    signal_resource=group_id,
                )
            ),
        )
        cdk.Tags.of(launch_template).add("Name", settings.sending_domain)

        group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=[subnet]),
            launch_template=launch_template,
            min_capacity=1,
            max_capacity=1,
            signals=autoscaling.Signals.wait_for_all(timeout=START_TIMEOUT),
            update_policy=autoscaling.UpdatePolicy.rolling_update(
                min_instances_in_service=0,
                max_batch_size=1,
                pause_time=START_TIMEOUT,
                wait_on_resource_signals=True,
            ),
        )
        group_resource = group.node.default_child
        assert isinstance(group_resource, autoscaling.CfnAutoScalingGroup)
        group_resource.override_logical_id(group_id)
        # A host that starts without its permissions would fail its self-test.
        group.node.add_dependency(self._role)
        acknowledge(
            group,
            "AwsSolutions-AS3",
            "The group has one host and never scales; a host that fails to start is told by its alarm.",
        )
        cdk.Tags.of(self).add(CELL_TAG, cell)

    def _allow_reading_the_signing_key(self, secret_arn: str, encryption_key: kms.IKey) -> None:
        self._allow("ReadSigningKey", ["secretsmanager:GetSecretValue"], [secret_arn])
        self._allow(
            "DecryptSigningKey",
            ["kms:Decrypt"],
            [encryption_key.key_arn],
            {
                "StringEquals": {
                    "kms:ViaService": via_secrets_manager(self),
                    "kms:EncryptionContext:SecretARN": secret_arn,
                }
            },
        )

    def _allow_attaching(self, volume: ec2.IVolume, cell: str) -> None:
        stack = cdk.Stack.of(self)
        self._allow(
            "AttachOwnQueue",
            ["ec2:AttachVolume"],
            [stack.format_arn(service="ec2", resource="volume", resource_name=volume.volume_id)],
        )
        instances = stack.format_arn(service="ec2", resource="instance", resource_name="*")
        self._allow(
            "AttachToOwnCell",
            ["ec2:AttachVolume"],
            [instances],
            {"StringEquals": {f"aws:ResourceTag/{CELL_TAG}": cell}},
        )
        self._acknowledge_wildcard(
            f"Resource::arn:aws:ec2:{stack.region}:{stack.account}:instance/*",
            "An instance's id is not known before it starts; the condition on its tag admits this "
            "cell's only.",
        )

    def _allow_signalling(self) -> None:
        stack = cdk.Stack.of(self)
        self._allow("SignalOwnStack", ["cloudformation:SignalResource"], [stack.stack_id])

    def _allow_logging(self, log_group: logs.ILogGroup) -> None:
        self._allow(
            "WriteMailLog",
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [log_group.log_group_arn],
        )

    def _allow_systems_manager(self) -> None:
        """Session Manager and Run Command, without AmazonSSMManagedInstanceCore's other rights.

        That policy also reads every parameter of the account. The `ec2messages` actions are its older
        channel, which the agent uses only where `ssmmessages` is not allowed:
        https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html
        """
        self._allow(
            "BeReachedBySystemsManager",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
        )
        self._acknowledge_wildcard(
            "Resource::*",
            "These are the agent's own channels; the actions know no narrower resource.",
        )

    def _allow(
        self,
        sid: str,
        actions: list[str],
        resources: list[str],
        conditions: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._role.add_to_policy(
            iam.PolicyStatement(
                sid=sid, actions=actions, resources=resources, conditions=conditions
            )
        )

    def _acknowledge_wildcard(self, finding: str, reason: str) -> None:
        acknowledge(self._role, f"AwsSolutions-IAM5[{finding}]", reason)


def _render_user_data(
    stack: cdk.Stack,
    settings: Environment,
    *,
    dkim_secret_arn: str,
    queue_volume_id: str,
    log_group_name: str,
    signal_resource: str,
) -> str:
    document = user_data.render(
        user_data.HostSettings(
            region=settings.region,
            sending_domain=settings.sending_domain,
            postmaster=settings.postmaster,
            dkim_selector=settings.dkim.signing,
            dkim_secret_arn=dkim_secret_arn,
            queue_volume_id=queue_volume_id,
            log_group_name=log_group_name,
            stack_name=stack.stack_name,
            signal_resource=signal_resource,
            architecture=settings.host.architecture,
            extra_user_data=settings.host.read_extra_user_data(),
        )
    )
    size = _size_when_deployed(stack, document)
    if size > user_data.MAX_BYTES:
        raise InvalidEnvironment(
            f"{settings.file}: host.extra_user_data: with it the user-data has up to "
            f"{size} bytes, and EC2 takes {user_data.MAX_BYTES}; shorten the script by "
            f"{size - user_data.MAX_BYTES} bytes, or let it fetch the rest from S3"
        )
    return document


def _size_when_deployed(stack: cdk.Stack, document: str) -> int:
    """An upper bound, in bytes, with every deploy-time value at its longest."""
    resolved = stack.resolve(document)
    parts = [resolved] if isinstance(resolved, str) else resolved["Fn::Join"][1]
    return sum(
        len(part.encode()) if isinstance(part, str) else LONGEST_TOKEN_VALUE for part in parts
    )
