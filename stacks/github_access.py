"""What the workflows in .github/ may do in one AWS account, without a stored key.

GitHub signs a token that says which repository, branch and GitHub environment a job belongs to, and
AWS exchanges it for a role's credentials:
https://docs.github.com/en/actions/concepts/security/openid-connect.
"""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.delivery_settings import DeliverySettings
from stacks.doctor_access import allow_doctor
from stacks.environment import Environment

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
# As long as the job that deploys may take.
LONGEST_DEPLOYMENT = cdk.Duration.hours(2)


class GitHubAccess(cdk.Stack):
    """Two roles per environment, in the account that these environments share.

    postern-github-<environment> deploys, and asks doctor. It takes a token of the deployed branch
    whose job runs in the GitHub environment <environment>-approval, and, unless each deployment is
    approved, <environment>: so AWS itself refuses what nobody approved.
    postern-github-<environment>-diff shows what would change, before anybody is asked. It takes any
    token of the deployed branch and reads only.

    IAM has no Region; the stack is in that of the first environment.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: DeliverySettings,
        environments: Sequence[Environment],
    ) -> None:
        first = environments[0]
        assert {each.account for each in environments} == {first.account}
        super().__init__(
            scope,
            construct_id,
            stack_name="postern-github",
            description=f"What the workflows of {settings.repository} may do here",
            env=cdk.Environment(account=first.account, region=first.region),
        )
        provider_arn = self._provider_arn(settings)
        repository = _repository_claim(settings)
        branch = f"refs/heads/{settings.branch}"
        for each in environments:
            scope_of_one = Construct(self, each.name)
            deploy = iam.Role(
                scope_of_one,
                "Deploy",
                role_name=f"postern-github-{each.name}",
                description=f"Deploys {each.name} from {settings.repository}",
                max_session_duration=LONGEST_DEPLOYMENT,
                assumed_by=_token(
                    provider_arn,
                    sub=[f"{repository}:environment:{name}" for name in _github_environments(each)],
                    # The subject of a job in an environment does not say its branch.
                    ref=branch,
                ),
            )
            _allow_bootstrap_roles(deploy, each, "deploy", "file-publishing", "lookup")
            allow_doctor(deploy, each)
            diff = iam.Role(
                scope_of_one,
                "Diff",
                role_name=f"postern-github-{each.name}-diff",
                description=f"Shows what {settings.repository} would change in {each.name}",
                assumed_by=_token(provider_arn, sub=[f"{repository}:ref:{branch}"], ref=branch),
            )
            # `cdk diff --method=template` reads the deployed templates with it and needs no other.
            _allow_bootstrap_roles(diff, each, "lookup")

    def _provider_arn(self, settings: DeliverySettings) -> str:
        assert settings.github is not None
        if settings.github.provider == "exists":
            return f"arn:aws:iam::{self.account}:oidc-provider/{ISSUER}"
        provider = iam.OidcProviderNative(
            self, "Provider", url=f"https://{ISSUER}", client_ids=[AUDIENCE]
        )
        return provider.oidc_provider_arn


def _repository_claim(settings: DeliverySettings) -> str:
    """How a token's subject begins.

    With the ids in it for repositories made or renamed since July 2026:
    https://docs.github.com/en/actions/reference/security/oidc.
    """
    assert settings.github is not None
    owner, name = settings.repository.split("/")
    if settings.github.ids is None:
        return f"repo:{owner}/{name}"
    return f"repo:{owner}@{settings.github.ids.owner}/{name}@{settings.github.ids.repository}"


def _github_environments(settings: Environment) -> list[str]:
    assert settings.delivery is not None
    approved = f"{settings.name}-approval"
    return [approved] if settings.delivery.approval == "always" else [settings.name, approved]


def _token(provider_arn: str, *, sub: list[str], ref: str) -> iam.WebIdentityPrincipal:
    """Jobs whose token says so, word for word.

    AWS knows more of GitHub's claims than the subject since January 2026:
    https://aws.amazon.com/about-aws/whats-new/2026/01/aws-sts-supports-validation-identity-provider-claims/
    """
    return iam.WebIdentityPrincipal(
        provider_arn,
        {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": sub, f"{ISSUER}:ref": ref}},
    )


def _allow_bootstrap_roles(role: iam.Role, settings: Environment, *kinds: str) -> None:
    """The roles that `cdk bootstrap` made in the environment's account and Region."""
    account, region = settings.account, settings.region
    qualifier = cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER
    role.add_to_policy(
        iam.PolicyStatement(
            sid="TheBootstrapsRoles",
            actions=["sts:AssumeRole"],
            resources=[
                f"arn:aws:iam::{account}:role/cdk-{qualifier}-{kind}-role-{account}-{region}"
                for kind in kinds
            ],
        )
    )
