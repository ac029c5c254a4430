"""Every environment's file becomes a CDK stage: `cdk deploy 'prod/*'`.

With `--context environment=NAME` that file alone is read: faster, and an environment can be
deployed while another one's file is being edited. With POSTERN_SUFFIX too, its sandbox alone.
"""

import os
import sys
from pathlib import Path

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from stacks.environment import SUFFIX_VARIABLE, Environment, InvalidEnvironment, load, load_all
from stacks.postern_stage import PosternStage

ENVIRONMENTS = Path("environments")


def main() -> None:
    # Without the CDK's own template validation, which takes longer than everything else together:
    # the tests run cfn-lint.
    app = cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    try:
        environments = _chosen(
            app.node.try_get_context("environment"), suffix=os.environ.get(SUFFIX_VARIABLE)
        )
    except InvalidEnvironment as error:
        sys.exit(str(error))
    for environment in environments:
        PosternStage(app, environment)
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


if __name__ == "__main__":
    main()
