"""The pipeline that deploys every environment that asks for it, in the order that the files say."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import pipelines
from constructs import Construct

from stacks.acknowledgement import acknowledge
from stacks.approval_topic import ApprovalTopic
from stacks.delivery_settings import DeliverySettings
from stacks.delivery_wildcards import explain_wildcards
from stacks.doctor_access import doctor_role_name
from stacks.encrypted_log_group import EncryptedLogGroup
from stacks.environment import Environment
from stacks.postern_stage import PosternStage

PACKAGES = Path(__file__).parents[1] / "package.json"
GATE_ROLE_NAME = "postern-delivery-gate"

# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-available.html
BUILD_IMAGE = codebuild.LinuxBuildImage.STANDARD_8_0
# https://github.com/aws/aws-codebuild-docker-images/blob/master/ubuntu/standard/8.0/runtimes.yml
RUNTIMES = {"python": "3.13", "nodejs": "24"}
# A deployment that waits for a person longer than this is started anew.
ARTIFACT_DAYS = 30
ACCESS_LOG_REASON = (
    "Copies of the repository and of its templates, which only the pipeline's roles may read; "
    "CodePipeline records who started what."
)


def gate_role_arn(settings: DeliverySettings) -> str | None:
    """The role that the pipeline's gate runs in, or None without a pipeline."""
    if settings.pipeline is None:
        return None
    return f"arn:aws:iam::{settings.pipeline.account}:role/{GATE_ROLE_NAME}"


def in_order(environments: Iterable[Environment]) -> list[Environment]:
    """Those that a pipeline delivers, the first first."""
    orders = {e.delivery.order: e for e in environments if e.delivery}
    return [orders[order] for order in sorted(orders)]


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """An environment, and the stage that deploys it."""

    settings: Environment
    stage: PosternStage


class Delivery(cdk.Stack):
    """Checks and synthesises each push, then deploys environment by environment.

    Of each: what broadens permissions waits for a person, and so does everything where the
    environment says so, with the diff to read; then its stacks; then `postern doctor`, which stops
    the pipeline before the next environment unless all is well.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: DeliverySettings,
        delivered: Sequence[Delivered],
    ) -> None:
        assert settings.pipeline is not None
        super().__init__(
            scope,
            construct_id,
            stack_name="postern-delivery",
            description=f"Deploys {settings.repository}, branch {settings.branch}",
            env=cdk.Environment(account=settings.pipeline.account, region=settings.pipeline.region),
        )
        versions = json.loads(PACKAGES.read_text(encoding="utf-8"))["devDependencies"]
        self._cli = f"aws-cdk@{versions['aws-cdk']}"
        self._log_group = EncryptedLogGroup(
            self,
            "BuildLog",
            name="/postern/delivery/builds",
            retention=logs.RetentionDays.THREE_MONTHS,
        ).log_group
        approvals = ApprovalTopic(self, "Approvals", address=settings.pipeline.notify)
        self._topic = approvals.topic
        self._source = pipelines.CodePipelineSource.connection(
            settings.repository,
            settings.branch,
            connection_arn=settings.pipeline.connection_arn,
            action_name="Source",
        )
        self._gate_role = self._make_gate_role([environment.settings for environment in delivered])
        self._pipeline = pipelines.CodePipeline(
            self,
            "Pipeline",
            code_pipeline=self._make_pipeline(),
            synth=pipelines.CodeBuildStep(
                "Synth",
                input=self._source,
                commands=["make check", "make synth"],
                primary_output_directory="cdk.out",
                build_environment=codebuild.BuildEnvironment(
                    compute_type=codebuild.ComputeType.MEDIUM
                ),
            ),
            cli_version=versions["aws-cdk"],
            cdk_assets_cli_version=versions["cdk-assets"],
            # One build for all assets, which are small: a build costs by the started minute.
            publish_assets_in_parallel=False,
            code_build_defaults=pipelines.CodeBuildOptions(
                build_environment=codebuild.BuildEnvironment(build_image=BUILD_IMAGE),
                logging=codebuild.LoggingOptions(
                    cloud_watch=codebuild.CloudWatchLoggingOptions(log_group=self._log_group)
                ),
                partial_build_spec=codebuild.BuildSpec.from_object(
                    {"version": "0.2", "phases": {"install": {"runtime-versions": RUNTIMES}}}
                ),
            ),
        )
        for environment in delivered:
            self._add(environment)
        self._pipeline.build_pipeline()
        self._allow_the_connection(settings.pipeline.connection_arn)
        self._pin_the_permissions_check()
        self._tidy_the_support_stacks()
        explain_wildcards(self)

    def _make_pipeline(self) -> codepipeline.Pipeline:
        """CodePipeline, and the bucket for what it hands from step to step."""
        key = kms.Key(
            self,
            "ArtifactsKey",
            description="Artifacts of the delivery pipeline",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        bucket = s3.Bucket(
            self,
            "Artifacts",
            bucket_name=cdk.PhysicalName.GENERATE_IF_NEEDED,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            enforce_ssl=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            lifecycle_rules=[s3.LifecycleRule(expiration=cdk.Duration.days(ARTIFACT_DAYS))],
            # It holds copies only; CloudFormation deletes it once it is empty.
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        acknowledge(bucket, "AwsSolutions-S1", ACCESS_LOG_REASON)
        return codepipeline.Pipeline(
            self,
            "CodePipeline",
            pipeline_name="postern",
            pipeline_type=codepipeline.PipelineType.V2,
            # A push waits for the one before it; of several that wait, the newest goes on.
            execution_mode=codepipeline.ExecutionMode.SUPERSEDED,
            artifact_bucket=bucket,
            # Other accounts and Regions are reached with keys of this stack and of its support
            # stacks (postern-delivery-support-<Region>), one in each further Region.
            cross_account_keys=True,
            enable_key_rotation=True,
            restart_execution_on_update=True,
        )

    def _add(self, environment: Delivered) -> None:
        settings, stage = environment.settings, environment.stage
        before: list[pipelines.Step] = [
            pipelines.ConfirmPermissionsBroadening(
                "Permissions", stage=stage, notification_topic=self._topic
            )
        ]
        if settings.delivery is not None and settings.delivery.approval == "always":
            before += self._ask_always(settings, stage)
        self._pipeline.add_stage(stage, pre=before, post=[self._doctor(settings)])

    def _ask_always(self, settings: Environment, stage: PosternStage) -> list[pipelines.Step]:
        """Show what would change, then wait for a person who has looked at it."""
        lookup_role = (
            f"arn:aws:iam::{settings.account}:role/"
            f"cdk-hnb659fds-lookup-role-{settings.account}-{settings.region}"
        )
        diff = f"cdk --app . diff --method=template '{stage.node.path}/*'"
        same = f"{diff} --security-only --fail-on=broadening"
        build = "projects/${CODEBUILD_BUILD_ID%%:*}/build/$CODEBUILD_BUILD_ID"
        console = "https://$AWS_REGION.console.aws.amazon.com/codesuite/codebuild"
        broadens = "BROADENS PERMISSIONS, or that could not be told"
        show = pipelines.CodeBuildStep(
            "Diff",
            input=self._pipeline.cloud_assembly_file_set,
            install_commands=[f"npm install -g {self._cli}"],
            commands=[
                diff,
                f'export BROADENING="{broadens}"',
                f'if {same}; then export BROADENING="does not broaden permissions"; fi',
                f'export LOG="{console}/{build}/?region=$AWS_REGION"',
            ],
            role_policy_statements=[
                iam.PolicyStatement(actions=["sts:AssumeRole"], resources=[lookup_role])
            ],
        )
        broadening, log = map(show.exported_variable, ("BROADENING", "LOG"))
        approval = pipelines.ManualApprovalStep(
            "Approve",
            comment=f"Deploys {settings.name} ({settings.sending_domain}). It {broadening}. "
            f"What is replaced or removed, and who may do more, is in the log of its Diff: {log}",
            # The very variable of the comment: the CDK looks for variables there only.
            review_url=log,
            notification_topic=self._topic,
        )
        approval.add_step_dependency(show)
        return [show, approval]

    def _doctor(self, settings: Environment) -> pipelines.CodeBuildStep:
        """The gate: nothing wrong and nothing untold, or the pipeline stops here."""
        role = f"arn:aws:iam::{settings.account}:role/{doctor_role_name(settings.name)}"
        # Read by the AWS SDK; CodeBuild's own credentials are those of the gate's role.
        profile = rf"[profile doctor]\nrole_arn = {role}\ncredential_source = EcsContainer\n"
        return pipelines.CodeBuildStep(
            "Doctor",
            input=self._source,
            commands=[
                f"printf '{profile}' > doctor-profile",
                f"AWS_CONFIG_FILE=doctor-profile AWS_PROFILE=doctor make gate ENV={settings.name}",
            ],
            role=self._gate_role,
        )

    def _make_gate_role(self, environments: Sequence[Environment]) -> iam.Role:
        """Named, because the environments' DoctorAccess stacks trust this name."""
        role = iam.Role(
            self,
            "GateRole",
            role_name=GATE_ROLE_NAME,
            description="Runs postern doctor after each environment",
            assumed_by=iam.ServicePrincipal(
                "codebuild.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            ),
        )
        role.add_to_policy(
            iam.PolicyStatement(
                sid="BeDoctor",
                actions=["sts:AssumeRole"],
                resources=[
                    f"arn:aws:iam::{environment.account}:role/{doctor_role_name(environment.name)}"
                    for environment in environments
                ],
            )
        )
        return role

    def _allow_the_connection(self, connection_arn: str) -> None:
        """The CDK grants the action by the service's old name only.

        An action's prefix has to match the ARN's.
        https://docs.aws.amazon.com/dtconsole/latest/userguide/rename.html
        """
        source = self._pipeline.pipeline.node.find_child("Source").node.find_child("Source")
        role = source.node.find_child("CodePipelineActionRole")
        assert isinstance(role, iam.Role)
        role.add_to_policy(
            iam.PolicyStatement(
                sid="UseTheConnection",
                actions=["codeconnections:UseConnection"],
                resources=[connection_arn],
            )
        )

    def _pin_the_permissions_check(self) -> None:
        """The CDK's own project installs whatever CLI is newest, on an older image.

        https://github.com/aws/aws-cdk/blob/main/packages/aws-cdk-lib/pipelines/lib/private/application-security-check.ts
        """
        check = self._pipeline.node.find_child("PipelinesSecurityCheck")
        project = check.node.find_child("CDKSecurityCheck")
        resource = project.node.default_child
        assert isinstance(project, codebuild.Project)
        assert isinstance(resource, codebuild.CfnProject)
        unpinned = "npm install -g aws-cdk"
        spec = json.dumps(self.resolve(resource.source)["buildSpec"])
        assert spec.count(f"{unpinned}\\") == 1, "the CDK installs its CLI in another way now"
        spec = spec.replace(unpinned, f"npm install -g {self._cli}")
        resource.add_property_override("Source.BuildSpec", json.loads(spec))
        resource.add_property_override("Environment.Image", BUILD_IMAGE.image_id)
        resource.add_property_override(
            "LogsConfig.CloudWatchLogs",
            {"Status": "ENABLED", "GroupName": self._log_group.log_group_name},
        )
        self._log_group.grant_write(project)
        # The function that approves what broadens nothing would keep its log for two years, and
        # beyond the stack.
        function_log = check.node.find_child("CDKPipelinesAutoApprove").node.find_child("LogGroup")
        log_resource = function_log.node.default_child
        assert isinstance(log_resource, logs.CfnLogGroup)
        log_resource.add_property_override("RetentionInDays", 90)
        log_resource.apply_removal_policy(cdk.RemovalPolicy.DESTROY)

    def _tidy_the_support_stacks(self) -> None:
        """What the CDK makes in each further Region gets what the artifacts' bucket has here."""
        for region, support in self._pipeline.pipeline.cross_region_support.items():
            if region == self.region:
                continue
            bucket = support.replication_bucket
            resource = bucket.node.default_child
            assert isinstance(resource, s3.CfnBucket)
            rule = {"Status": "Enabled", "ExpirationInDays": ARTIFACT_DAYS}
            resource.add_property_override("LifecycleConfiguration.Rules", [rule])
            encryption = "BucketEncryption.ServerSideEncryptionConfiguration.0.BucketKeyEnabled"
            resource.add_property_override(encryption, True)
            resource.apply_removal_policy(cdk.RemovalPolicy.DESTROY)
            acknowledge(bucket, "AwsSolutions-S1", ACCESS_LOG_REASON)
