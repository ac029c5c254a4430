"""AWS is told nothing of the deployment that is not so."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops import run_command
from ops.cli import app
from ops.deployment import CannotTell, Deployment, MailHost, Resource, Stack
from ops.port25_claims import claims
from ops.port25_request import FORM
from ops.run_command import Output
from ops.verdicts import Verdict
from tests.ops.deployed import LONG_AGO, Deployed, resource, write_environment

DOMAIN = "mail.example.com"
ADDRESSES = ["203.0.113.10", "203.0.113.11"]
ALARMS = ["postern/prod/bounce-rate-warning", "postern/prod/bounce-rate-critical"]
CONFIGURATION = """\
O DaemonPortOptions=Name=MTA, Family=inet, Addr=127.0.0.1, Port=smtp, M=E, L=128
O DaemonPortOptions=Name=MSA, Family=inet, Addr=127.0.0.1, Port=submission, M=E, L=128
R$*\t\t\t$#error $@ 5.7.1 $: "550 Envelope sender must be an address in $j"
Xopendkim, S=local:/run/opendkim/socket, F=T, T=C:1m;S:1m;R:2m;E:5m
POSTMASTER=postmaster@example.com
"""
# A claim's name, and words of its sentence in English and in Korean.
SENTENCES = {
    "no-inbound": ("no inbound rule", "인바운드 규칙이 없으므로"),
    "own-senders": ("unless its sender is an address in", "도메인이 아니면 거부됩니다"),
    "spf": ("-all", "-all"),
    "dkim": ("s2026a._domainkey.mail.example.com", "s2026a._domainkey.mail.example.com"),
    "signed": ("signed with DKIM before it leaves", "DKIM 서명 후에 발송되며"),
    "dmarc": ("p=none", "p=none"),
    "bounces": ("Bounces are forwarded to", "반송 메일은"),
    "suppressions": ("30 days", "30일 동안"),
    "alarms": ("warns us when 5 %", "5 %에 이르면"),
}


class World:
    """What is deployed; a test takes something away."""

    def __init__(self) -> None:
        self.records = {
            DOMAIN: ['"v=spf1 ip4:203.0.113.10 ip4:203.0.113.11 -all"'],
            f"s2026a._domainkey.{DOMAIN}": [dkim_record(294)],
            f"_dmarc.{DOMAIN}": [
                '"v=DMARC1; p=none; adkim=s; aspf=s; rua=mailto:dmarc-reports@example.com"'
            ],
        }
        self.inbound: list[dict[str, Any]] = []
        self.names = dict.fromkeys(ADDRESSES, f"{DOMAIN}.")
        self.configuration = CONFIGURATION
        self.suppressions: dict[str, Any] | CannotTell = {"days": 30, "suppressions": []}
        self.alarms = {
            name: {"AlarmName": name, "Threshold": threshold, "ActionsEnabled": True}
            | {"AlarmActions": ["arn:aws:sns:us-east-1:111122223333:alerts"]}
            for name, threshold in zip(ALARMS, (5.0, 10.0), strict=True)
        }
        self.stacks = ["SendingIdentity", "MailHosts", "Monitoring"]

    def deployment(self, file: Path) -> Deployed:
        resources: dict[str, list[Resource]] = {
            "SendingIdentity": [],
            "MailHosts": [resource("AWS::EC2::SecurityGroup", "sg-1")],
            "Monitoring": [resource("AWS::CloudWatch::Alarm", name) for name in ALARMS],
        }
        return Deployed(
            file,
            stacks={
                name: Stack(
                    name=f"postern-prod-{name}",
                    status="CREATE_COMPLETE",
                    outputs={"ElasticIps": ", ".join(ADDRESSES)},
                    resources=resources[name],
                )
                for name in self.stacks
            },
            hosts=[MailHost(instance_id="i-1", zone="us-east-1a", launched=LONG_AGO)],
            answers={
                "ec2.describe_addresses": lambda PublicIps: {  # noqa: N803
                    "Addresses": [{"AllocationId": address} for address in PublicIps]
                },
                "ec2.describe_addresses_attribute": self._attribute,
                "ec2.describe_security_groups": lambda GroupIds: {  # noqa: N803
                    "SecurityGroups": [
                        {"GroupId": group, "IpPermissions": self.inbound} for group in GroupIds
                    ]
                },
                "route53.list_resource_record_sets": self._record_sets,
                "cloudwatch.describe_alarms": lambda AlarmNames: {  # noqa: N803
                    "MetricAlarms": [self.alarms[n] for n in AlarmNames if n in self.alarms]
                },
            },
        )

    def run(self, _deployment: Deployment, _instance_id: str, argv: Sequence[str]) -> Output:
        if argv[0] == "grep":
            return Output(exit_status=0, stdout=self.configuration, stderr="")
        if isinstance(self.suppressions, CannotTell):
            raise self.suppressions
        return Output(exit_status=0, stdout=json.dumps(self.suppressions), stderr="")

    def _attribute(self, *, AllocationIds: list[str], **_: str) -> dict[str, Any]:  # noqa: N803
        named = [{"PtrRecord": self.names[a]} for a in AllocationIds if self.names[a]]
        return {"Addresses": named}

    def _record_sets(self, *, StartRecordName: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        values = self.records.get(StartRecordName.rstrip("."), [])
        found = {"Name": StartRecordName, "Type": "TXT"}
        record_set = {**found, "ResourceRecords": [{"Value": value} for value in values]}
        return {"ResourceRecordSets": [record_set] if values else []}


def dkim_record(size: int) -> str:
    """A TXT record's value, split as Route 53 has it, with a key of so many bytes."""
    text = f"v=DKIM1; k=rsa; p={base64.b64encode(bytes(size)).decode()}"
    return f'"{text[:255]}" "{text[255:]}"'


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    def run(*arguments: Any, **_: Any) -> Output:
        return world.run(*arguments)

    monkeypatch.setattr(run_command, "run", run)
    return world


Request = Callable[..., Result]


@pytest.fixture
def request_(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Request:
    def run(*arguments: str) -> Result:
        file = tmp_path / "prod.toml"
        if not file.exists():
            write_environment(tmp_path)
        monkeypatch.setattr(Deployment, "load", lambda _name: world.deployment(file))
        return CliRunner().invoke(app, ["port25-request", "--environment", "prod", *arguments])

    return run


@pytest.mark.parametrize(("language", "column"), [("en", 0), ("ko", 1)])
def test_the_request_is_filled_in_from_what_is_deployed(
    request_: Request, language: str, column: int
) -> None:
    done = request_("--language", language)

    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for given in ("us-east-1", "111122223333", *ADDRESSES, "about 2,000 messages a day", FORM):
        assert given in text
    for sentence in SENTENCES.values():
        assert " ".join(sentence[column].split()) in text
    assert "$" not in text
    assert "postern doctor --environment prod" in text


def test_without_a_word_about_the_language_it_is_english_and_both_are_to_be_had(
    request_: Request,
) -> None:
    english, korean, both = request_(), request_("--language", "ko"), request_("--language", "both")

    assert "WHAT WE SEND" in english.stdout
    assert "발송하는 메일" not in english.stdout
    assert both.stdout == english.stdout + korean.stdout


def test_as_json_it_is_one_document(request_: Request) -> None:
    told = json.loads(request_("--json", "--language", "both").stdout)

    assert told["verdict"] == "fine"
    assert told["form"] == FORM
    assert told["reverse_dns"] == dict.fromkeys(ADDRESSES, DOMAIN)
    assert told["text"].keys() == told["steps"].keys() == {"en", "ko"}
    assert len(told["steps"]["en"]) == len(told["steps"]["ko"])


def _inbound(world: World) -> None:
    world.inbound = [{"IpProtocol": "tcp", "FromPort": 25}]


def _listening(world: World) -> None:
    world.configuration = CONFIGURATION.replace("Addr=127.0.0.1, Port=smtp", "Port=smtp")


def _any_sender(world: World) -> None:
    world.configuration = CONFIGURATION.replace("Envelope sender must", "Envelope sender may")


def _unsigned(world: World) -> None:
    world.configuration = CONFIGURATION.replace(", F=T", "")


def _other_postmaster(world: World) -> None:
    world.configuration = CONFIGURATION.replace("postmaster@", "nobody@")


def _soft_spf(world: World) -> None:
    world.records[DOMAIN] = [world.records[DOMAIN][0].replace("-all", "~all")]


def _wide_spf(world: World) -> None:
    world.records[DOMAIN] = ['"v=spf1 ip4:203.0.113.0/24 -all"']


def _two_spf(world: World) -> None:
    world.records[DOMAIN].append('"v=spf1 -all"')


def _short_key(world: World) -> None:
    world.records[f"s2026a._domainkey.{DOMAIN}"] = [dkim_record(162)]


def _no_dmarc(world: World) -> None:
    del world.records[f"_dmarc.{DOMAIN}"]


def _no_program(world: World) -> None:
    world.suppressions = CannotTell("no such program")


def _nobody_suppressed(world: World) -> None:
    world.suppressions = {"days": 0, "suppressions": []}


def _silent_alarm(world: World) -> None:
    world.alarms[ALARMS[1]]["AlarmActions"] = []


def _no_alarms(world: World) -> None:
    world.stacks.remove("Monitoring")


@pytest.mark.parametrize(
    ("harm", "name", "verdict"),
    [
        (_inbound, "no-inbound", Verdict.WRONG),
        (_listening, "own-senders", Verdict.WRONG),
        (_any_sender, "own-senders", Verdict.WRONG),
        (_unsigned, "signed", Verdict.WRONG),
        (_other_postmaster, "bounces", Verdict.WRONG),
        (_soft_spf, "spf", Verdict.WRONG),
        (_wide_spf, "spf", Verdict.WRONG),
        (_two_spf, "spf", Verdict.WRONG),
        (_short_key, "dkim", Verdict.WRONG),
        (_no_dmarc, "dmarc", Verdict.WRONG),
        (_no_program, "suppressions", Verdict.UNKNOWN),
        (_nobody_suppressed, "suppressions", Verdict.WRONG),
        (_silent_alarm, "alarms", Verdict.WRONG),
        (_no_alarms, "alarms", Verdict.UNKNOWN),
    ],
)
def test_a_claim_that_does_not_hold_is_left_out_and_said_so(
    world: World,
    request_: Request,
    tmp_path: Path,
    harm: Callable[[World], None],
    name: str,
    verdict: Verdict,
) -> None:
    harm(world)

    done = request_("--json", "--language", "both")

    told = json.loads(done.stdout)
    assert done.exit_code == {Verdict.WRONG: 1, Verdict.UNKNOWN: 2}[verdict]
    text = {language: " ".join(written.split()) for language, written in told["text"].items()}
    for other, (english, korean) in SENTENCES.items():
        assert (english in text["en"]) == (other != name)
        assert (korean in text["ko"]) == (other != name)
    found = claims(world.deployment(tmp_path / "prod.toml"), ADDRESSES)
    assert [c.finding.verdict for c in found if not c.holds] == [verdict]
    assert "The request does not say it" in done.stdout


def test_before_the_hosts_are_deployed_it_says_what_is_known_and_what_to_deploy(
    world: World, request_: Request
) -> None:
    world.stacks = ["SendingIdentity"]

    done = request_()

    assert done.exit_code == 2
    assert "SPF authorises" in done.stdout
    assert "no inbound rule" not in done.stdout
    assert "Deploy the rest first" in " ".join(done.stderr.replace("│", " ").split())


def test_nothing_is_asked_for_that_is_not_deployed(world: World, request_: Request) -> None:
    world.stacks = []
    done = request_("--json")
    assert done.exit_code == 2
    assert "There is no stack" in json.loads(done.stdout)["error"]


def test_an_address_without_its_name_is_not_ready(world: World, request_: Request) -> None:
    world.names[ADDRESSES[1]] = ""
    done = request_()
    assert done.exit_code == 1
    assert f"{ADDRESSES[1]}  none yet" in done.stdout


def test_without_a_use_case_it_says_where_to_write_it(request_: Request, tmp_path: Path) -> None:
    file = write_environment(tmp_path)
    before, _, after = file.read_text().partition("[mail]\n")
    file.write_text(before + after.split('"""\n', maxsplit=2)[2])

    done = request_("--json")

    told = json.loads(done.stdout)
    assert (done.exit_code, told["text"]) == (1, {"en": ""})
    (finding,) = [found for found in told["findings"] if found["verdict"] != "fine"]
    assert f"[mail] use_case in {file}" in finding["remedy"]


def test_nothing_is_said_of_every_host_when_one_is_silent(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deployment = world.deployment(write_environment(tmp_path))
    silent = MailHost(instance_id="i-2", zone="us-east-1b", launched=LONG_AGO)
    hosts = [*deployment.hosts(), silent]
    monkeypatch.setattr(deployment, "hosts", lambda: hosts)

    def run(deployment: Deployment, instance_id: str, argv: Sequence[str], **_: int) -> Output:
        if instance_id == "i-2":
            raise CannotTell("its agent is silent")
        return world.run(deployment, instance_id, argv)

    monkeypatch.setattr(run_command, "run", run)

    verdicts = {claim.name: claim.finding.verdict for claim in claims(deployment, ADDRESSES)}

    about_hosts = ("own-senders", "signed", "bounces")
    assert {verdicts[name] for name in about_hosts} == {Verdict.UNKNOWN}


def test_a_stack_without_a_group_says_nothing_of_the_accounts_others(
    world: World, tmp_path: Path
) -> None:
    deployment = world.deployment(write_environment(tmp_path))
    deployment.stack("MailHosts").resources.clear()  # type: ignore[attr-defined]
    (claim,) = (c for c in claims(deployment, ADDRESSES) if c.name == "no-inbound")
    assert claim.finding.verdict is Verdict.WRONG
    assert "ec2.describe_security_groups" not in {name for name, _ in deployment.calls}


def test_without_addresses_nothing_is_requested(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Stack(name="postern-prod-SendingIdentity", status="X", outputs={}, resources=[])
    monkeypatch.setattr(Deployed, "stack", lambda _deployment, _name: bare)
    asked = request_("--json")
    assert (asked.exit_code, json.loads(asked.stdout)["verdict"]) == (2, "unknown")
