"""The commands that messages tell an operator to run: those of a sandbox name its suffix too."""

from stacks.environment import Environment


def cdk_deploy(settings: Environment, stacks: str = "*") -> str:
    """Deploys those stacks of the environment; * is all of them."""
    target = f"{settings.name}/{stacks}"
    quoted = f"'{target}'" if "*" in target else target
    return (
        f"{settings.command_prefix}cdk --context environment={settings.file.stem} deploy {quoted}"
    )


def make_diff(settings: Environment) -> str:
    """Shows what a deployment would change."""
    return f"{settings.command_prefix}make diff ENV={settings.file.stem}"


def make_shrink(settings: Environment) -> str:
    """Deploys a file with fewer zones than are deployed, once they are drained."""
    return f"{settings.command_prefix}make shrink ENV={settings.file.stem}"


def postern(settings: Environment, command: str) -> str:
    """`postern COMMAND` about the environment."""
    return f"{settings.command_prefix}postern {command} --environment {settings.file.stem}"
