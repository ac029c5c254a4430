"""What a host gets where other hosts submit mail, and that others get nothing of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import user_data
from review.host_files import File, settings_of, unpacked, written
from tests.user_data.conftest import SETTINGS, document
from tests.user_data.program import program

CLIENTS = user_data.ClientSettings(
    networks=("10.20.0.0/16",),
    connections=7,
    connections_per_minute=90,
    name="submission.mail.example.com",
    certificate_arn="arn:aws:acm:us-east-1:111122223333:certificate/1",
    secret_arns=("arn:aws:secretsmanager:1:secret:web", "arn:aws:secretsmanager:1:secret:batch"),
)
WITH_CLIENTS = replace(SETTINGS, clients=CLIENTS)
WITHOUT: Mapping[str, File] = unpacked(user_data.archive(SETTINGS))
WITH: Mapping[str, File] = unpacked(user_data.archive(WITH_CLIENTS))


def test_without_clients_a_host_gets_nothing_of_theirs() -> None:
    everything = document() + "".join(file.content for file in WITHOUT.values())

    assert not {file.path for file in user_data._CLIENT_FILES} & set(WITHOUT) - {
        "/usr/local/sbin/postern-self-test"
    }
    for word in ("SUBMISSION_NAME", "clients.mc", "sasl", "8587", "ClientRate"):
        assert word not in everything


def test_clients_change_no_other_file_than_these() -> None:
    changed = {path for path in WITHOUT if WITH[path] != WITHOUT[path]}

    assert changed == {
        "/etc/mail/access",
        "/usr/local/lib/postern/packages",
        "/usr/local/sbin/postern-self-test",
    }
    # Both self-tests are made by the program of that name.
    assert WITH["/usr/local/lib/postern/self-test"] == WITHOUT["/usr/local/sbin/postern-self-test"]


def test_every_file_of_theirs_is_in_the_archive_with_its_mode() -> None:
    folder = Path(user_data.__file__).parent
    for file in user_data._CLIENT_FILES:
        text = (folder / file.source).read_text()
        text = text.replace("@SENDING_DOMAIN@", "mail.example.com")
        assert WITH[file.path] == File(file.mode, text), file.path
        assert not re.search("@[A-Z_]{3,}@", text)


def test_the_host_is_told_where_the_secrets_are_and_none_of_them() -> None:
    settings = settings_of(document(WITH_CLIENTS))

    assert settings["SUBMISSION_NAME"] == "submission.mail.example.com"
    assert settings["SUBMISSION_CERTIFICATE_ARN"] == CLIENTS.certificate_arn
    # Shell reads this file too, so without a space.
    assert settings["SUBMISSION_SECRET_ARNS"] == ",".join(CLIENTS.secret_arns)
    assert settings.keys() - settings_of(document()).keys() == {
        "SUBMISSION_NAME",
        "SUBMISSION_CERTIFICATE_ARN",
        "SUBMISSION_SECRET_ARNS",
    }


def test_deploy_time_values_of_clients_change_nothing_in_the_archive() -> None:
    elsewhere = replace(CLIENTS, certificate_arn="other", secret_arns=("other",))

    assert user_data.archive(replace(SETTINGS, clients=elsewhere)) == user_data.archive(
        WITH_CLIENTS
    )


@pytest.mark.parametrize(
    ("network", "prefixes"),
    [
        ("10.20.0.0/16", ["10.20"]),
        ("10.0.0.0/8", ["10"]),
        ("10.20.30.40/32", ["10.20.30.40"]),
        ("10.20.30.0/24", ["10.20.30"]),
        ("10.20.0.0/15", ["10.20", "10.21"]),
        ("10.20.4.0/22", ["10.20.4", "10.20.5", "10.20.6", "10.20.7"]),
        ("10.20.30.252/30", [f"10.20.30.{last}" for last in range(252, 256)]),
        ("172.16.0.0/12", [f"172.{second}" for second in range(16, 32)]),
    ],
)
def test_sendmail_is_told_of_just_the_named_addresses(network: str, prefixes: list[str]) -> None:
    """Its map looks an address up by its leading bytes; it knows no other prefix lengths."""
    settings = replace(SETTINGS, clients=replace(CLIENTS, networks=(network,)))
    access = unpacked(user_data.archive(settings))["/etc/mail/access"].content

    entries = [line.split("\t") for line in access.splitlines() if not line.startswith("#")]
    assert [(key, value) for key, value in entries if key.startswith("Connect:")] == [
        ("Connect:mail.example.com", "RELAY"),
        *((f"Connect:{prefix}", "RELAY") for prefix in prefixes),
    ]


def test_each_address_has_its_limits() -> None:
    lines = WITH["/etc/mail/access"].content.splitlines()

    assert "ClientRate:\t90" in lines
    assert "ClientConn:\t7" in lines
    for feature in ("ratecontrol", "conncontrol"):
        assert f"FEATURE(`{feature}', `', `terminate')dnl" in WITH["/etc/mail/clients.mc"].content
    # sendmail asks for them after it let those pass who may relay: so they are asked for before.
    own = WITH["/etc/mail/clients.mc"].content.partition("SLocal_check_relay")[2]
    for ruleset in ("RateControl", "ConnControl"):
        assert f'$>"{ruleset}" dummy' in own.partition("Scheck_data")[0]


def test_the_listener_of_clients_asks_for_a_password_after_starttls_only() -> None:
    configuration = WITH["/etc/mail/clients.mc"].content

    (daemon,) = re.findall(r"^DAEMON_OPTIONS\(`(.*)'\)", configuration, re.MULTILINE)
    assert daemon.startswith("Name=Clients, ")
    assert ", M=Ea," in daemon
    assert "define(`confAUTH_OPTIONS', `p,y')dnl" in configuration
    assert "define(`confAUTH_MECHANISMS', `PLAIN LOGIN')dnl" in configuration
    # Whoever authenticates still has to come from where clients are.
    assert "TRUST_AUTH_MECH" not in configuration


def test_the_listener_of_clients_has_all_of_the_mtas_configuration() -> None:
    configuration = WITH["/etc/mail/clients.mc"].content

    assert "include(`/etc/mail/sendmail.mc')dnl" in configuration
    assert WITH["/etc/mail/sendmail.mc"] == WITHOUT["/etc/mail/sendmail.mc"]
    changed = set(re.findall(r"define\(`(conf\w+)'", configuration))
    assert changed == {
        "confPID_FILE",
        "confMAX_DAEMON_CHILDREN",
        "confAUTH_MECHANISMS",
        "confAUTH_OPTIONS",
        "confAUTH_REALM",
        "confSERVER_CERT",
        "confSERVER_KEY",
        "confTLS_SRV_OPTIONS",
        "confSERVER_SSL_OPTIONS",
    }


def test_what_starts_the_mta_starts_what_clients_need() -> None:
    wanted = WITH["/etc/systemd/system/sendmail.service.d/clients.conf"].content

    for unit in (
        "sendmail-clients.service",
        "submission-health.socket",
        "submission-certificate.timer",
        "submission-credentials.timer",
    ):
        assert unit in wanted
        assert f"/etc/systemd/system/{unit}" in WITH


def test_the_packages_that_check_passwords_are_installed_and_their_daemon_never_runs() -> None:
    installed = WITH["/usr/local/lib/postern/packages"].content.split()

    assert set(installed) == {*user_data.PACKAGES, *user_data.CLIENT_PACKAGES}
    assert json.dumps(installed) in document(WITH_CLIENTS)
    # An empty unit file masks the unit: systemd.unit(5).
    assert WITH["/etc/systemd/system/saslauthd.service"].content == ""


def test_only_the_early_files_are_in_the_user_data_with_clients_too() -> None:
    assert list(written(document(WITH_CLIENTS))) == list(written(document()))


def test_services_of_clients_may_not_gain_privileges() -> None:
    for unit in ("sendmail-clients", "submission@", "submission-health@"):
        text = WITH[f"/etc/systemd/system/{unit}.service"].content
        for word in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
            assert word in text, f"{unit}: {word}"
    fetch = WITH["/etc/systemd/system/submission@.service"].content.splitlines()
    assert "CapabilityBoundingSet=CAP_CHOWN" in fetch
    assert "LimitCORE=0" in fetch


def test_the_load_balancer_sends_nobody_to_a_host_that_is_drained(tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "systemctl").chmod(0o755)
    script = WITH["/usr/local/lib/postern/submission-health"].content

    def answer() -> str:
        return subprocess.run(
            ["bash", "-c", script.replace("/var/spool/queue/closed", str(mark))],
            check=True,
            input="GET / HTTP/1.1\r\n\r\n",
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        ).stdout.splitlines()[0]

    assert answer() == "HTTP/1.1 200 OK"
    mark.touch()
    assert answer() == "HTTP/1.1 503 this zone is being drained"


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REGION", "us-east-1")
    monkeypatch.setenv("SENDING_DOMAIN", "mail.example.com")
    monkeypatch.setenv("SUBMISSION_SECRET_ARNS", ",".join(CLIENTS.secret_arns))
    return program("clients/fetch-submission")


def test_no_password_is_in_an_argument(
    fetch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = []

    def run(command: list[object], **options: Any) -> subprocess.CompletedProcess[str]:
        ran.append(([str(word) for word in command], options.get("input")))
        answer = {"SecretString": json.dumps({"username": "web", "password": "s3cret"})}
        return subprocess.CompletedProcess(["x"], 0, json.dumps(answer), "")

    (tmp_path / "sasldb2").touch()
    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(fetch, "put", lambda *_: None)
    fetch.credentials(tmp_path)

    stored = [(command, given) for command, given in ran if command[0] == "saslpasswd2"]
    assert [given for _, given in stored] == [b"s3cret"] * 2
    assert [command[-1] for command, _ in stored] == ["web"] * 2
    assert not [command for command, _ in ran if "s3cret" in " ".join(command)]


def test_a_secret_that_cannot_be_read_is_not_quoted(
    fetch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = {"SecretString": '{"username": "web", "pass": "s3cret"}'}
    monkeypatch.setattr(fetch, "aws", lambda *_: answer)

    with pytest.raises(SystemExit) as told:
        fetch.credentials(tmp_path)

    assert "s3cret" not in str(told.value)
    assert CLIENTS.secret_arns[0] in str(told.value)
