"""No step of a rotation makes mail fail: each is refused until it can't."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops import dkim, run_command
from ops.cli import app
from ops.deployment import CannotTell, Deployment, MailHost, Resource, Stack
from ops.dkim import NoPlan, Step, next_selector, plan
from ops.dns_answers import Dns, Server, zone_file_text
from ops.verdicts import Verdict, overall
from stacks.environment import Dkim, load
from tests.ops.deployed import LONG_AGO, Deployed, resource, write_environment

DOMAIN = "mail.example.com"
ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC)
SERVERS = [
    Server(name="ns-1.example", address="192.0.2.1"),
    Server(name="ns-2.example", address="192.0.2.2"),
]
ONE = ('selectors = ["s2026a", "s2026b"]', 'selectors = ["s2026a"]')
SWITCHED = ('signing = "s2026a"', 'signing = "s2026b"')
RECORD = '"v=DKIM1; k=rsa; " "p=AAAA"'


def settings(*selectors: str, signing: str) -> Dkim:
    return Dkim(selectors=selectors, signing=signing)


def test_a_rotation_is_publish_then_sign_then_retire() -> None:
    used = {"s2026a"}
    first = plan(settings("s2026a", signing="s2026a"), used=used, wanted=None, year=2026)
    second = plan(first.settings, used=used, wanted=None, year=2026)
    third = plan(second.settings, used=used, wanted=None, year=2026)

    assert [step.step for step in (first, second, third)] == [Step.PUBLISH, Step.SIGN, Step.RETIRE]
    assert first.settings == settings("s2026a", "s2026b", signing="s2026a")
    assert second.settings == settings("s2026a", "s2026b", signing="s2026b")
    assert third.settings == settings("s2026b", signing="s2026b")


@pytest.mark.parametrize("signing", ["s2026a", "s2026b"])
def test_no_second_rotation_begins_before_the_first_ended(signing: str) -> None:
    with pytest.raises(NoPlan, match="A rotation is under way"):
        plan(settings("s2026a", "s2026b", signing=signing), used=(), wanted="x", year=2026)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ({"s1"}, "s2026a"),
        ({"s2025c", "s2026a", "s2026b"}, "s2026c"),
        ({"s2026b"}, "s2026c"),
    ],
)
def test_a_name_is_never_used_twice(used: set[str], expected: str) -> None:
    """Also not one from before the last, whose key was removed."""
    assert next_selector(used, year=2026) == expected
    with pytest.raises(NoPlan, match="is or was a selector"):
        plan(settings("s2027a", signing="s2027a"), used=used, wanted=min(used), year=2026)
    with pytest.raises(NoPlan, match="--selector"):
        next_selector({"s2026z"}, year=2026)


def test_the_queues_lifetime_is_sendmails() -> None:
    text = (ROOT / "user_data/sendmail/sendmail.mc").read_text(encoding="utf-8")
    found = re.search(r"confTO_QUEUERETURN', `(\d+)d'", text)
    assert found
    assert timedelta(days=int(found[1])) == dkim.QUEUE_LIFETIME


# The guards


class World:
    """What AWS and the authoritative servers say; a test changes what it is about."""

    def __init__(self) -> None:
        self.keys = ["s2026a", "s2026b"]
        self.published = NOW - timedelta(hours=2)
        self.records: dict[str, list[str]] = {f"s2026b._domainkey.{DOMAIN}": [RECORD]}
        self.signing: str | None = "s2026a"
        self.status = "UPDATE_COMPLETE"
        self.launched = dict.fromkeys(("us-east-1a", "us-east-1b"), LONG_AGO)
        self.seen: dict[str, tuple[str, ...] | CannotTell] = {
            server.name: (zone_file_text(RECORD, "TXT"),) for server in SERVERS
        }
        self.absence = 900
        self.kept_secrets: list[str] = []
        self.report: dict[str, int] | CannotTell = {"held": 0, "oldest_age_seconds": 86_400}

    def deployment(self, file: Path) -> Deployed:
        return Deployed(
            file,
            stacks={"SendingIdentity": self._identity(), "MailHosts": self._hosts()},
            hosts=[
                MailHost(instance_id=f"i-{zone}", zone=zone, launched=launched)
                for zone, launched in self.launched.items()
            ],
            answers={
                "route53.list_resource_record_sets": self._record_sets,
                "secretsmanager.list_secrets": {
                    "SecretList": [{"Description": text} for text in self.kept_secrets]
                },
            },
        )

    def _identity(self) -> Stack:
        records: Sequence[Resource] = [
            resource(
                "AWS::Route53::RecordSet",
                f"{selector}._domainkey.{DOMAIN}.",
                changed=self.published,
            )
            for selector in self.keys
        ]
        keys = [resource("Custom::DkimKey", f"{s}._domainkey.{DOMAIN}") for s in self.keys]
        return Stack(
            name="postern-prod-SendingIdentity",
            status="UPDATE_COMPLETE",
            outputs={},
            resources=[*keys, *records],
        )

    def _hosts(self) -> Stack:
        outputs: Mapping[str, str] = (
            {} if self.signing is None else {"SigningSelector": self.signing}
        )
        return Stack(
            name="postern-prod-MailHosts", status=self.status, outputs=outputs, resources=[]
        )

    def _record_sets(self, *, StartRecordName: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        name = StartRecordName.rstrip(".")
        # As Route 53 does: from that name on, so another record when there is none.
        found = name if name in self.records else "zzz.example.com"
        values = self.records.get(name, ['"other"'])
        return {
            "ResourceRecordSets": [
                {
                    "Name": f"{found}.",
                    "Type": "TXT",
                    "ResourceRecords": [{"Value": value} for value in values],
                }
            ]
        }

    def run_json(self, *_: Any) -> dict[str, int]:
        if isinstance(self.report, CannotTell):
            raise self.report
        return self.report

    def ask(
        self, server: Server, _name: str, record_type: str, *, recursive: bool
    ) -> tuple[str, ...]:
        assert (record_type, recursive) == ("TXT", False)
        seen = self.seen[server.name]
        if isinstance(seen, CannotTell):
            raise seen
        return seen


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(Dns, "servers_of", lambda _dns, _zone: SERVERS)
    monkeypatch.setattr(Dns, "ask", lambda _dns, *asked, **how: world.ask(*asked, **how))
    monkeypatch.setattr(Dns, "absence_seconds", lambda _dns, _server, _zone: world.absence)
    monkeypatch.setattr(run_command, "run_json", world.run_json)
    return world


Run = Callable[..., Result]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`postern dkim rotate` on tmp_path/prod.toml, or another command of `dkim`."""

    def run(*arguments: str, command: str = "rotate") -> Result:
        monkeypatch.setattr(
            Deployment, "load", lambda _name: world.deployment(tmp_path / "prod.toml")
        )
        return CliRunner().invoke(
            app, ["dkim", command, "--environment", "prod", "--json", *arguments]
        )

    return run


def assert_refused(run: Run, file: Path, exit_status: int, said: str) -> None:
    """That `rotate` says so, and changes nothing."""
    before = file.read_bytes()

    refused = run()

    assert refused.exit_code == exit_status, refused.stdout
    assert said in refused.stdout
    assert json.loads(refused.stdout)["diff"] == ""
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def publishing(world: World) -> None:
    """As before a rotation."""
    world.keys = ["s2026a"]
    world.records = {}


def retiring(world: World) -> None:
    world.signing = "s2026b"


def test_publishing_adds_the_selector_and_keeps_every_comment(
    world: World, run: Run, tmp_path: Path
) -> None:
    file = write_environment(
        tmp_path, ONE, ('signing = "s2026a"', 'signing = "s2026a"  # since May')
    )
    before = file.read_text()
    publishing(world)

    done = run("--selector", "s2026x")

    assert done.exit_code == 0, done.stdout
    told = json.loads(done.stdout)
    assert file.read_text() == before.replace('["s2026a"]', '["s2026a", "s2026x"]')
    assert '-selectors = ["s2026a"]' in told["diff"]
    assert '+selectors = ["s2026a", "s2026x"]' in told["diff"]
    assert told["commands"] == [
        "make diff ENV=prod",
        "cdk --context environment=prod deploy prod/SendingIdentity",
        "postern dkim rotate --environment prod",
    ]


def test_the_new_name_is_the_years_next_free_one(world: World, run: Run, tmp_path: Path) -> None:
    file = write_environment(tmp_path, ONE)
    publishing(world)
    world.kept_secrets = [
        f"DKIM private key s{NOW.year}d._domainkey.{DOMAIN}",
        f"DKIM private key s{NOW.year}x._domainkey.mail.example.net",
        "Something else",
    ]

    assert run().exit_code == 0
    assert load(file).dkim.selectors == ("s2026a", f"s{NOW.year}e")


def test_status_says_the_next_step_and_changes_nothing(
    world: World, run: Run, tmp_path: Path
) -> None:
    file = write_environment(tmp_path, ONE)
    before = file.read_text()
    publishing(world)

    told = run(command="status")

    assert told.exit_code == 0
    assert json.loads(told.stdout)["next"]["step"] == "publish"
    assert file.read_text() == before


def test_signing_switches_and_nothing_else(world: World, run: Run, tmp_path: Path) -> None:
    file = write_environment(tmp_path)
    before = file.read_text()

    done = run()

    assert done.exit_code == 0, done.stdout
    assert file.read_text() == before.replace(*SWITCHED)
    assert json.loads(done.stdout)["commands"][1] == (
        "cdk --context environment=prod deploy 'prod/*'"
    )
    assert world.deployment(file).settings.dkim.signing == "s2026b"


def test_retiring_removes_the_old_selector(world: World, run: Run, tmp_path: Path) -> None:
    file = write_environment(tmp_path, SWITCHED)
    before = file.read_text()
    retiring(world)

    assert run().exit_code == 0
    assert file.read_text() == before.replace('["s2026a", "s2026b"]', '["s2026b"]')


@pytest.mark.parametrize("command", ["rotate", "status"])
def test_a_sandbox_has_no_selectors_of_its_own_to_rotate(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    file = write_environment(tmp_path, name="dev")
    before = file.read_bytes()
    sandbox = world.deployment(file)
    sandbox.settings = load(file, suffix="anna")
    monkeypatch.setattr(Deployment, "load", lambda _name: sandbox)

    refused = CliRunner().invoke(app, ["dkim", command, "--environment", "dev"])

    told = " ".join(refused.stdout.split())
    assert refused.exit_code == 1
    assert f"dev-anna is a sandbox: its selectors are those of {file}" in told
    assert "POSTERN_SUFFIX= postern dkim rotate --environment dev. dev-anna follows" in told
    assert file.read_bytes() == before
    assert sandbox.calls == []


def _key_not_deployed(world: World) -> None:
    world.keys = ["s2026a"]


def _record_removed(world: World) -> None:
    world.records = {}


def _server_without(world: World) -> None:
    world.seen["ns-2.example"] = ()


def _server_with_another(world: World) -> None:
    world.seen["ns-2.example"] = ("v=DKIM1; k=rsa; p=BBBB",)


def _server_silent(world: World) -> None:
    world.seen["ns-2.example"] = CannotTell("ns-2.example does not answer")


def _just_published(world: World) -> None:
    world.published = datetime.now(UTC) - timedelta(seconds=world.absence - 60)


def _young_host(world: World) -> None:
    retiring(world)
    world.launched["us-east-1b"] = datetime.now(UTC) - timedelta(days=6, hours=23)


def _mail_held(world: World) -> None:
    retiring(world)
    world.report = {"held": 1, "oldest_age_seconds": 0}


def _mail_from_before(world: World) -> None:
    retiring(world)
    world.launched["us-east-1b"] = datetime.now(UTC) - timedelta(days=8)
    world.report = {"held": 0, "oldest_age_seconds": 9 * 86_400}


def _no_report(world: World) -> None:
    retiring(world)
    world.report = CannotTell("Systems Manager does not reach i-us-east-1a")


def _half_a_report(world: World) -> None:
    retiring(world)
    world.report = {"oldest_age_seconds": 0}


def _zone_without_host(world: World) -> None:
    retiring(world)
    del world.launched["us-east-1b"]


def _not_switched(world: World) -> None:
    world.signing = "s2026a"


def _no_output(world: World) -> None:
    world.signing = None


def _deploying(world: World) -> None:
    retiring(world)
    world.status = "UPDATE_IN_PROGRESS"


@pytest.mark.parametrize(
    ("harm", "exit_status", "said"),
    [
        (_key_not_deployed, 1, "has no key of this selector"),
        (_record_removed, 1, "has no such TXT record"),
        (_server_without, 1, "ns-2.example (192.0.2.2)"),
        (_server_with_another, 1, "p=BBBB"),
        (_server_silent, 2, "ns-2.example does not answer"),
        (_just_published, 1, "remember for 900 s that a name was missing"),
    ],
)
def test_it_refuses_to_sign_with_a_key_the_world_cannot_see(
    world: World,
    run: Run,
    tmp_path: Path,
    harm: Callable[[World], None],
    exit_status: int,
    said: str,
) -> None:
    file = write_environment(tmp_path)
    harm(world)
    assert_refused(run, file, exit_status, said)


@pytest.mark.parametrize(
    ("harm", "exit_status", "said"),
    [
        (_young_host, 1, "i-us-east-1b"),
        (_mail_held, 1, "1 held"),
        (_mail_from_before, 1, "9 days"),
        (_no_report, 2, "does not reach"),
        (_half_a_report, 2, "has no 'held'"),
        (_zone_without_host, 2, "none is in service"),
        (_not_switched, 1, "the deployed hosts sign with s2026a, the file says s2026b"),
        (_no_output, 2, "deployed by an older version"),
        (_deploying, 2, "UPDATE_IN_PROGRESS"),
    ],
)
def test_a_key_stays_published_while_mail_that_it_signed_may_be_under_way(
    world: World,
    run: Run,
    tmp_path: Path,
    harm: Callable[[World], None],
    exit_status: int,
    said: str,
) -> None:
    file = write_environment(tmp_path, SWITCHED)
    harm(world)
    assert_refused(run, file, exit_status, said)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda world: world.keys.append("s2026b"), "Deploy what the file says first"),
        (_deploying, "UPDATE_IN_PROGRESS"),
        (lambda world: world.records.update({f"new._domainkey.{DOMAIN}": ['"x"']}), "has it"),
    ],
)
def test_no_rotation_begins_on_what_is_not_deployed_as_written(
    world: World, run: Run, tmp_path: Path, harm: Callable[[World], None], said: str
) -> None:
    file = write_environment(tmp_path, ONE)
    before = file.read_bytes()
    publishing(world)
    harm(world)

    refused = run("--selector", "new")

    assert refused.exit_code in (1, 2)
    assert said in refused.stdout
    assert file.read_bytes() == before


def test_a_wrong_name_leaves_the_file_as_it_was(world: World, run: Run, tmp_path: Path) -> None:
    file = write_environment(tmp_path, ONE)
    before = file.read_bytes()
    publishing(world)

    refused = run("--selector", "Not_A_Label")

    assert refused.exit_code == 2
    assert "prod.toml: dkim.selectors" in json.loads(refused.stdout)["error"]
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["prod.toml"]


def test_every_guard_is_told_even_when_all_hold(world: World, tmp_path: Path) -> None:
    deployment = world.deployment(write_environment(tmp_path))
    planned = plan(deployment.settings.dkim, used=(), wanted=None, year=2026)

    findings = dkim.guards(deployment, planned, now=NOW)

    assert overall(findings) is Verdict.FINE
    assert [finding.check for finding in findings] == [
        "key of s2026b",
        f"s2026b._domainkey.{DOMAIN} in the hosted zone",
        f"s2026b._domainkey.{DOMAIN} at ns-1.example (192.0.2.1)",
        f"s2026b._domainkey.{DOMAIN} at ns-2.example (192.0.2.2)",
        "time since publication",
    ]


def test_no_private_key_is_asked_for(world: World, tmp_path: Path) -> None:
    deployment = world.deployment(write_environment(tmp_path))
    dkim.used_selectors(deployment)
    planned = plan(deployment.settings.dkim, used=(), wanted=None, year=2026)
    dkim.guards(deployment, planned, now=NOW)

    services = {name for name, _ in deployment.calls if name.startswith("secretsmanager")}
    assert services == {"secretsmanager.list_secrets"}
