"""What `postern doctor` may do when a pipeline runs it, and who may run it so."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.acknowledgement import acknowledge
from stacks.environment import Environment
from stacks.mail_cell import CELL_TAG
from stacks.sending_address import ENVIRONMENT_TAG

# What doctor looks at.
STACKS = ("SendingIdentity", "Network", "MailHosts", "Monitoring")

# What stays wide, by what cdk-nag finds.
_GENERATED_NAME = "CloudFormation makes the rest of the name when it makes the resource."
_REASONS = {
    "Resource::*": "AWS grants these reading calls on all resources or none "
    "(https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html); the "
    "condition keeps them to the environment's Region.",
    "stack/": "A stack's ARN ends in an id that CloudFormation makes.",
    "secret:": _GENERATED_NAME + " The condition on its tag admits this environment's, and "
    "DescribeSecret reads when a key was made, not the key.",
    ":sns:": _GENERATED_NAME,
    "instance/": "A host's id is not known before it starts; the condition on its tag admits this "
    "environment's. On those the permission is root's: see doctor_statements.",
}


def doctor_role_name(environment: str) -> str:
    """The role's name in the environment's account."""
    return f"postern-{environment}-doctor"


def doctor_statements(settings: Environment) -> list[iam.PolicyStatement]:
    """What doctor asks of one environment: docs/operator-policy.json's Doctor* statements, bounded.

    Less narrow than it looks: `ssm:SendCommand` runs any command as root on the
    environment's mail hosts. AWS-RunShellScript takes the command from its caller, and a document
    with doctor's two commands in it would have to be kept in step with every release of both.
    """
    account, region = settings.account, settings.region

    def arn(service: str, resource: str) -> str:
        return f"arn:aws:{service}:{region}:{account}:{resource}"

    return [
        iam.PolicyStatement(
            sid="DoctorReadsWhatIsDeployed",
            actions=[
                "autoscaling:DescribeAutoScalingGroups",
                "cloudwatch:DescribeAlarms",
                "cloudwatch:GetMetricStatistics",
                "ec2:DescribeAddresses",
                "ec2:DescribeAddressesAttribute",
                "ec2:DescribeInstances",
                "ec2:DescribeNatGateways",
                "ec2:DescribeVolumes",
                "ssm:DescribeInstanceInformation",
                "ssm:GetCommandInvocation",
                "sts:GetCallerIdentity",
            ],
            resources=["*"],
            conditions={"StringEquals": {"aws:RequestedRegion": region}},
        ),
        iam.PolicyStatement(
            sid="DoctorReadsStacks",
            actions=["cloudformation:DescribeStacks", "cloudformation:ListStackResources"],
            resources=[
                arn("cloudformation", f"stack/postern-{settings.name}-{stack}/*")
                for stack in STACKS
            ],
        ),
        iam.PolicyStatement(
            sid="DoctorReadsRecords",
            actions=["route53:GetHostedZone", "route53:ListResourceRecordSets"],
            resources=[f"arn:aws:route53:::hostedzone/{settings.hosted_zone.id}"],
        ),
        iam.PolicyStatement(
            sid="DoctorReadsTheAgeOfKeysNotTheKeys",
            actions=["secretsmanager:DescribeSecret"],
            resources=[arn("secretsmanager", "secret:*")],
            conditions={"StringEquals": {f"aws:ResourceTag/{ENVIRONMENT_TAG}": settings.name}},
        ),
        iam.PolicyStatement(
            sid="DoctorReadsWhoIsTold",
            actions=["sns:ListSubscriptionsByTopic"],
            resources=[arn("sns", f"postern-{settings.name}-Monitoring-*")],
        ),
        iam.PolicyStatement(
            sid="DoctorAsksMailHosts",
            actions=["ssm:SendCommand"],
            resources=[arn("ec2", "instance/*")],
            conditions={
                "StringEquals": {
                    f"ssm:resourceTag/{CELL_TAG}": [
                        f"{settings.name}/{zone}" for zone in settings.availability_zones
                    ]
                }
            },
        ),
        iam.PolicyStatement(
            sid="DoctorAsksByThisDocumentOnly",
            actions=["ssm:SendCommand"],
            resources=[f"arn:aws:ssm:{region}::document/AWS-RunShellScript"],
        ),
    ]


def allow_doctor(role: iam.Role, settings: Environment) -> None:
    """Add doctor's statements to the role, and to what stays wide in them its reason."""
    statements = doctor_statements(settings)
    for statement in statements:
        role.add_to_policy(statement)
    for resource in sorted({r for statement in statements for r in statement.resources}):
        if "*" in resource:
            finding = f"Resource::{resource}"
            (reason,) = (r for part, r in _REASONS.items() if part in finding)
            acknowledge(role, f"AwsSolutions-IAM5[{finding}]", reason)


class DoctorAccess(cdk.Stack):
    """The role in which the gate of the pipeline runs doctor in this environment's account.

    `gate_role_arn` alone may assume it. It is named by a condition and not as the principal: AWS
    keeps a principal as the id of the role that has the name at that time, so that a gate role that
    was deleted and made anew would be a stranger, and no deployment would mend that, since the
    template is the same. Who may make roles in the pipeline's account is trusted either way.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Environment, gate_role_arn: str
    ) -> None:
        super().__init__(
            scope, construct_id, description=f"The gate's access to {settings.sending_domain}"
        )
        gate_account = cdk.Arn.split(gate_role_arn, cdk.ArnFormat.SLASH_RESOURCE_NAME).account
        assert gate_account is not None
        role = iam.Role(
            self,
            "Role",
            role_name=doctor_role_name(settings.name),
            description=f"postern doctor of {settings.name}, as the pipeline's gate",
            assumed_by=iam.AccountPrincipal(gate_account).with_conditions(
                {"ArnEquals": {"aws:PrincipalArn": gate_role_arn}}
            ),
        )
        allow_doctor(role, settings)
