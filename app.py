"""Every environment's file becomes a CDK stage: `cdk deploy 'prod/*'`.

With `--context environment=NAME` that file alone is read: faster, and an environment can be
deployed while another one's file is being edited. With POSTERN_SUFFIX too, its sandbox alone.
With all of them, and a delivery.toml, comes what deploys those that ask for it: `Delivery`, a
pipeline, and `GitHub-<account>`, what the workflows of the repository may do in that account.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from stacks import delivery_settings
from stacks.delivery import Delivered, Delivery, gate_role_arn, in_order
from stacks.delivery_settings import DeliverySettings
from stacks.environment import SUFFIX_VARIABLE, Environment, InvalidEnvironment, load, load_all
from stacks.github_access import GitHubAccess
from stacks.postern_stage import PosternStage

ENVIRONMENTS = Path("environments")


def main() -> None:
    # Without the CDK's own template validation, which takes longer than everything else together:
    # the tests run cfn-lint.
    app = cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    name = app.node.try_get_context("environment")
    try:
        environments = _chosen(name, suffix=os.environ.get(SUFFIX_VARIABLE))
        settings = delivery_settings.load() if delivery_settings.FILE.exists() else None
    except InvalidEnvironment as error:
        sys.exit(str(error))
    gate = gate_role_arn(settings) if settings else None
    stages = {e.name: PosternStage(app, e, gate_role_arn=gate) for e in environments}
    if settings and not name:
        _deliver(app, settings, environments, stages)
    app.synth()


def _chosen(name: str | None, *, suffix: str | None) -> list[Environment]:
    if name:
        return [load(ENVIRONMENTS / f"{name}.toml", suffix=suffix or None)]
    if suffix:
        raise InvalidEnvironment(
            f'{SUFFIX_VARIABLE} is "{suffix}", and a sandbox is of one environment: name it, such '
            f"as --context environment=dev, or unset {SUFFIX_VARIABLE} for all environments"
        )
    return load_all(ENVIRONMENTS)


def _deliver(
    app: cdk.App,
    settings: DeliverySettings,
    environments: Sequence[Environment],
    stages: Mapping[str, PosternStage],
) -> None:
    """What deploys the environments that ask for it."""
    delivered = in_order(environments)
    if settings.pipeline and delivered:
        Delivery(
            app,
            "Delivery",
            settings=settings,
            delivered=[Delivered(settings=e, stage=stages[e.name]) for e in delivered],
        )
    if settings.github:
        for account in dict.fromkeys(e.account for e in delivered):
            GitHubAccess(
                app,
                f"GitHub-{account}",
                settings=settings,
                environments=[e for e in delivered if e.account == account],
            )


if __name__ == "__main__":
    main()
