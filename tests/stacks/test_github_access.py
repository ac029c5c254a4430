"""A token of GitHub's opens the one role that its job needs, and no other token opens any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_cdk.assertions import Template

from stacks import delivery_settings
from stacks.delivery import in_order
from stacks.delivery_settings import DeliverySettings, InvalidDelivery
from stacks.doctor_access import doctor_statements
from stacks.environment import Environment, load_all
from stacks.github_access import ISSUER, GitHubAccess
from tests.stacks.conftest import ROOT, Assembly, app_in, only, resources, statements
from tests.stacks.permissions import listed
from tests.stacks.test_wildcards import reasons, wildcards

DELIVERED = {each.name: each for each in in_order(load_all(ROOT / "environments"))}
DEPLOY = yaml.safe_load(
    (ROOT / ".github" / "workflows" / "deploy-environment.yml").read_text(encoding="utf-8")
)


def _settings(tmp_path: Path, *replacements: tuple[str, str]) -> DeliverySettings:
    """delivery.toml with passages replaced: (what stands there, what shall)."""
    text = (ROOT / "delivery.toml").read_text(encoding="utf-8")
    for old, new in replacements:
        assert text.count(old) == 1, f"delivery.toml does not have this once: {old}"
        text = text.replace(old, new)
    path = tmp_path / "delivery.toml"
    path.write_text(text, encoding="utf-8")
    return delivery_settings.load(path)


def _synthesise(
    settings: DeliverySettings, environments: list[Environment], folder: Path
) -> Assembly:
    """The stack of these environments' account, with cdk-nag, which raises on a finding."""
    app = app_in(folder)
    stack = GitHubAccess(app, "GitHub", settings=settings, environments=environments)
    app.synth()
    return Assembly({"GitHub": dict(Template.from_stack(stack).to_json())}, folder)


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """dev and prod as if they shared an account."""
    environments = [
        each.model_copy(update={"account": DELIVERED["dev"].account}) for each in DELIVERED.values()
    ]
    return _synthesise(delivery_settings.load(), environments, tmp_path_factory.mktemp("github"))


@pytest.fixture(scope="module")
def template(assembly: Assembly) -> dict[str, Any]:
    return assembly.templates["GitHub"]


def _roles(template: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The roles' properties by their names."""
    roles = resources(template, "AWS::IAM::Role").values()
    return {role["Properties"]["RoleName"]: role["Properties"] for role in roles}


def _opened(template: Mapping[str, Any], token: Mapping[str, str]) -> set[str]:
    """The roles that AWS gives to a job with that token."""
    opened = set()
    for name, role in _roles(template).items():
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Effect"] == "Allow"
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert set(statement["Condition"]) == {"StringEquals"}
        equal = statement["Condition"]["StringEquals"]
        assert set(equal) == {f"{ISSUER}:{claim}" for claim in ("aud", "sub", "ref")}
        if all(token[key.removeprefix(f"{ISSUER}:")] in listed(v) for key, v in equal.items()):
            opened.add(name)
    return opened


def _token(
    sub: str, *, ref: str = "refs/heads/main", aud: str = "sts.amazonaws.com"
) -> dict[str, str]:
    return {"sub": sub, "ref": ref, "aud": aud}


REPOSITORY = "repo:example/postern"
TOKENS = {
    "a deployment that nobody has to approve": (
        _token(f"{REPOSITORY}:environment:dev"),
        {"postern-github-dev"},
    ),
    "an approved one": (
        _token(f"{REPOSITORY}:environment:dev-approval"),
        {"postern-github-dev"},
    ),
    "an approved one where each is approved": (
        _token(f"{REPOSITORY}:environment:prod-approval"),
        {"postern-github-prod"},
    ),
    "one that nobody approved where each is to be": (
        _token(f"{REPOSITORY}:environment:prod"),
        set(),
    ),
    "a job of the branch outside of any environment": (
        _token(f"{REPOSITORY}:ref:refs/heads/main"),
        {"postern-github-dev-diff", "postern-github-prod-diff"},
    ),
    "another branch": (
        _token(f"{REPOSITORY}:ref:refs/heads/feature", ref="refs/heads/feature"),
        set(),
    ),
    "another branch in the environment": (
        _token(f"{REPOSITORY}:environment:dev", ref="refs/heads/feature"),
        set(),
    ),
    "a tag named like the branch": (
        _token(f"{REPOSITORY}:ref:refs/tags/main", ref="refs/tags/main"),
        set(),
    ),
    "a pull request": (
        _token(f"{REPOSITORY}:pull_request", ref="refs/pull/7/merge"),
        set(),
    ),
    "a pull request in the environment": (
        _token(f"{REPOSITORY}:environment:dev", ref="refs/pull/7/merge"),
        set(),
    ),
    "another repository": (_token("repo:example/other:environment:dev"), set()),
    "another owner": (_token("repo:somebody/postern:environment:dev"), set()),
    "a repository whose name begins the same": (
        _token("repo:example/postern-fork:environment:dev"),
        set(),
    ),
    "another environment": (_token(f"{REPOSITORY}:environment:staging"), set()),
    "a token made for another service": (
        _token(f"{REPOSITORY}:environment:dev", aud="https://github.com/example"),
        set(),
    ),
    "a repository of the same name, made anew": (
        _token("repo:example@9/postern@8:environment:dev"),
        set(),
    ),
}


@pytest.mark.parametrize("job", TOKENS)
def test_a_token_opens_its_role_only(template: dict[str, Any], job: str) -> None:
    token, expected = TOKENS[job]
    assert _opened(template, token) == expected


def test_a_repository_with_ids_is_known_by_them(tmp_path: Path) -> None:
    ids = (
        (
            "# [github.ids]\n# owner = 123456\n# repository = 456789",
            "[github.ids]\nowner = 1\nrepository = 2",
        ),
    )
    settings = _settings(tmp_path, *ids)
    template = _synthesise(settings, [DELIVERED["dev"]], tmp_path / "out").templates["GitHub"]
    assert _opened(template, _token("repo:example@1/postern@2:environment:dev")) == {
        "postern-github-dev"
    }
    assert not _opened(template, _token(f"{REPOSITORY}:environment:dev"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("owner = 1", "github.ids.repository: is missing"),
        (
            'owner = 1\nrepository = "2"',
            "github.ids.repository: input should be a valid integer; write a whole number above 0",
        ),
        (
            "owner = 0\nrepository = 2",
            "github.ids.owner: input should be greater than 0; write a whole number above 0",
        ),
        (
            "owner = 1\nrepository = 2\nrepo = 3",
            "github.ids.repo: unknown key; remove it, or write one of",
        ),
    ],
)
def test_wrong_ids_are_said(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(InvalidDelivery) as raised:
        _settings(tmp_path, ("# [github.ids]\n", f"[github.ids]\n{table}\n"))
    assert message in str(raised.value)


def test_github_is_known_to_aws_without_a_function_of_ours(template: dict[str, Any]) -> None:
    assert only(template, "AWS::IAM::OIDCProvider")["Properties"] == {
        "Url": f"https://{ISSUER}",
        "ClientIdList": ["sts.amazonaws.com"],
    }
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert kinds == {"AWS::IAM::OIDCProvider", "AWS::IAM::Role", "AWS::IAM::Policy"}


def test_an_account_that_knows_github_is_given_no_second_provider(tmp_path: Path) -> None:
    settings = _settings(tmp_path, ('provider = "create"', 'provider = "exists"'))
    template = _synthesise(settings, [DELIVERED["dev"]], tmp_path / "out").templates["GitHub"]
    assert not resources(template, "AWS::IAM::OIDCProvider")
    for role in _roles(template).values():
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {
            "Federated": f"arn:aws:iam::{DELIVERED['dev'].account}:oidc-provider/{ISSUER}"
        }


@pytest.mark.parametrize("name", DELIVERED)
def test_a_role_may_use_its_own_regions_bootstrap_and_ask_doctor(
    assembly: Assembly, name: str
) -> None:
    template = assembly.templates["GitHub"]
    allowed = {}
    for logical_id, role in resources(template, "AWS::IAM::Role").items():
        allowed[role["Properties"]["RoleName"]] = statements(template, logical_id)
        assert not {"Policies", "ManagedPolicyArns"} & role["Properties"].keys()
    account, region = DELIVERED["dev"].account, DELIVERED[name].region

    def bootstrap(*kinds: str) -> list[str]:
        return [
            f"arn:aws:iam::{account}:role/cdk-hnb659fds-{kind}-role-{account}-{region}"
            for kind in kinds
        ]

    (looks,) = allowed[f"postern-github-{name}-diff"]
    assert (looks["Action"], listed(looks["Resource"])) == ("sts:AssumeRole", bootstrap("lookup"))
    takes, *asks = allowed[f"postern-github-{name}"]
    assert takes["Action"] == "sts:AssumeRole"
    assert takes["Resource"] == bootstrap("deploy", "file-publishing", "lookup")
    assert {each["Sid"] for each in asks} == {
        each.sid for each in doctor_statements(DELIVERED[name])
    }


def test_every_wildcard_has_a_reason_and_every_reason_a_wildcard(assembly: Assembly) -> None:
    template = assembly.templates["GitHub"]
    used = {
        (each.logical_id, f"AwsSolutions-IAM5[{each.element}::{each.value}]")
        for each in wildcards(template)
    }
    assert used == set(reasons(assembly))


def test_the_workflow_takes_these_roles_for_as_long_as_they_may_be_held(
    template: dict[str, Any],
) -> None:
    for job, suffix in (("diff", "-diff"), ("deploy", "")):
        (step,) = (
            step
            for step in DEPLOY["jobs"][job]["steps"]
            if "configure-aws-credentials" in step.get("uses", "")
        )
        asked = step["with"]
        account, role = asked["role-to-assume"].split(":role/")
        assert account == "arn:aws:iam::${{ inputs.account }}"
        role = _roles(template)[role.replace("${{ inputs.environment }}", "dev")]
        assert role["RoleName"] == f"postern-github-dev{suffix}"
        longest = role.get("MaxSessionDuration", 3600)
        assert asked.get("role-duration-seconds", 3600) == longest
        assert DEPLOY["jobs"][job]["timeout-minutes"] * 60 < longest
