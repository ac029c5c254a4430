"""The files one by one, in the form that the host gets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import user_data
from tests.user_data.conftest import SETTINGS

FOLDER = Path(user_data.__file__).parent


def programs(interpreter: str) -> list[Path]:
    """Every file whose first line names this interpreter."""
    first_line = f"#!{interpreter}\n".encode()
    return sorted(
        path
        for path in FOLDER.rglob("*")
        if path.is_file() and path.read_bytes().startswith(first_line)
    )


@pytest.fixture(scope="session")
def configured(files: dict[str, str]) -> dict[str, str]:
    """The files without lines that are comments: what only a comment says is not configured."""
    marks = {".mc": "dnl ", ".lua": "--", "/52postern": "//"}

    def mark(path: str) -> str:
        return next((mark for end, mark in marks.items() if path.endswith(end)), "#")

    return {
        path: "".join(
            line for line in text.splitlines(True) if not line.lstrip().startswith(mark(path))
        )
        for path, text in files.items()
    }


SHELL = programs("/bin/sh") + programs("/bin/bash")
PYTHON = programs("/usr/bin/python3")


def named(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("script", SHELL, ids=named)
def test_shellcheck_finds_nothing(script: Path) -> None:
    checked = subprocess.run(["shellcheck", script], check=False, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout


def test_the_python_programs_keep_to_the_linters() -> None:
    for argv in (
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy", "--scripts-are-modules"],
    ):
        checked = subprocess.run(
            [sys.executable, "-m", *argv, *map(str, PYTHON)],
            check=False,
            capture_output=True,
            text=True,
            cwd=FOLDER.parent,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_the_host_gets_of_the_programs_is_still_a_program(files: dict[str, str]) -> None:
    for path, text in files.items():
        interpreter = text.partition("\n")[0]
        if interpreter.endswith("/python3"):
            compile(text, path, "exec")
        elif interpreter.endswith("sh"):
            shell = interpreter.removeprefix("#!")
            subprocess.run([shell, "-n"], check=True, input=text, text=True)


def test_every_program_stops_at_the_first_error() -> None:
    for script in SHELL:
        if script.name != "policy-rc.d":  # one statement
            assert "\nset -eu" in script.read_text(), script


def test_the_cloudwatch_agents_configuration_is_json(files: dict[str, str]) -> None:
    path = "/usr/local/lib/postern/amazon-cloudwatch-agent.json"
    collected = json.loads(files[path])["logs"]["logs_collected"]["files"]["collect_list"]

    assert [log["file_path"] for log in collected] == [
        "/var/log/postern/mail.log",
        "/var/log/postern/report.log",
        "/var/log/cloud-init-output.log",
    ]


def test_what_the_cloudwatch_agent_reads_is_written_and_rotated(configured: dict[str, str]) -> None:
    assert 'file="/var/log/postern/mail.log"' in configured["/etc/rsyslog.conf"]
    assert (
        'LOG = Path("/var/log/postern/report.log")' in configured["/usr/local/sbin/postern-report"]
    )
    assert "/var/log/postern/*.log" in configured["/etc/logrotate.d/rsyslog"].splitlines()
    assert (
        "install --directory --mode=0750 --group=adm /var/log/postern"
        in configured["/usr/local/sbin/postern-setup"]
    )


def test_the_report_is_made_each_minute_by_a_root_that_only_reads(
    configured: dict[str, str],
) -> None:
    unit = configured["/etc/systemd/system/postern-report.service"].splitlines()

    assert "OnCalendar=minutely" in configured["/etc/systemd/system/postern-report.timer"]
    assert "start postern-report.timer" in configured["/usr/local/sbin/postern-setup"]
    assert "ExecStart=/usr/local/sbin/postern-report --log" in unit
    # SETUID and SETGID: to ask a receiver as sendmail's user. NET_ADMIN: to list the packet filter.
    assert "CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_NET_ADMIN CAP_SETGID CAP_SETUID" in unit
    assert "ReadWritePaths=/var/log/postern" in unit
    for word in ("NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes"):
        assert word in unit


def test_the_mta_and_the_submission_program_refer_to_the_sending_domain(
    configured: dict[str, str],
) -> None:
    for name in ("sendmail", "submit"):
        domain = f"define(`confDOMAIN_NAME', `{SETTINGS.sending_domain}')dnl"
        assert domain in configured[f"/etc/mail/{name}.mc"]
    assert configured["/etc/mail/access"].split() == [f"Connect:{SETTINGS.sending_domain}", "RELAY"]
    assert configured["/etc/mail/local-host-names"].split() == [SETTINGS.sending_domain]


def test_sendmail_rewrites_nothing_after_signing(configured: dict[str, str]) -> None:
    mta = configured["/etc/mail/sendmail.mc"]

    assert "FEATURE(`nocanonify')dnl" in mta
    assert "define(`confMUST_QUOTE_CHARS', `')dnl" in mta
    for rewriting in (
        "MASQUERADE",
        "masquerade",
        "genericstable",
        "domaintable",
        "always_add_domain",
    ):
        assert rewriting not in mta


def test_no_message_passes_while_the_signer_is_away(configured: dict[str, str]) -> None:
    assert ", F=T," in configured["/etc/mail/sendmail.mc"]


def test_both_queues_are_on_the_queue_volume_only(configured: dict[str, str]) -> None:
    mount = "/var/spool/queue"
    assert f"Where={mount}\n" in configured["/etc/systemd/system/var-spool-queue.mount"]
    assert f"define(`QUEUE_DIR', `{mount}')" in configured["/etc/mail/sendmail.mc"]
    assert f"`mqueue', `Path={mount}/mqueue," in configured["/etc/mail/sendmail.mc"]
    assert f"`deferred', `Path={mount}/mqueue-deferred," in configured["/etc/mail/sendmail.mc"]
    assert f"define(`MSP_QUEUE_DIR', `{mount}/mqueue-client')" in configured["/etc/mail/submit.mc"]
    for unit in ("sendmail.service", "sendmail-client.service"):
        assert f"AssertPathIsMountPoint={mount}\n" in configured[f"/etc/systemd/system/{unit}"]


def test_load_is_no_reason_to_let_mail_wait(configured: dict[str, str]) -> None:
    for file in ("/etc/mail/sendmail.mc", "/etc/mail/submit.mc"):
        assert "define(`confQUEUE_LA', `1000')dnl" in configured[file]


def test_the_network_does_not_start_without_the_packet_filter(configured: dict[str, str]) -> None:
    network = configured["/etc/systemd/system/systemd-networkd.service.d/postern.conf"]

    assert (
        "ExecStartPre=+/usr/sbin/nft --file /etc/postern/packet-filter.nft" in network.splitlines()
    )
    assert "/etc/postern/packet-filter.nft" in configured
    assert "nftables" in configured["/usr/local/lib/postern/packages"].split()


def test_the_packet_filter_is_there_before_the_owners_script_runs(
    configured: dict[str, str],
) -> None:
    setup = configured["/usr/local/sbin/postern-setup"]
    first_boot = configured["/usr/local/lib/postern/first-boot"]

    assert "\n    nft --file /etc/postern/packet-filter.nft\n" in setup
    assert setup.index("nft --file") < setup.index("install-agents")
    assert first_boot.index("/postern-setup\n") < first_boot.index("/extra-user-data\n")


def test_every_service_is_restarted_and_none_may_gain_privileges(
    configured: dict[str, str],
) -> None:
    for unit in ("opendkim.service", "sendmail.service", "sendmail-client.service"):
        text = configured[f"/etc/systemd/system/{unit}"]
        for word in ("Restart=always", "NoNewPrivileges=yes", "ProtectSystem=strict", "User="):
            assert word in text, f"{unit}: {word}"


def test_the_dkim_key_is_written_to_a_tmpfs_where_its_signer_reads_it(
    configured: dict[str, str],
) -> None:
    fetch = configured["/etc/systemd/system/dkim-key.service"]

    assert "KeyFile                 /run/dkim-key/private.pem" in configured["/etc/opendkim.conf"]
    for word in ("RuntimeDirectory=dkim-key", "UMask=0077", "LimitCORE=0"):
        assert word in fetch
    assert "chown --recursive opendkim: /run/dkim-key\n" in fetch
    assert "User=opendkim" in configured["/etc/systemd/system/opendkim.service"]


def test_who_fetches_the_dkim_key_has_roots_name_and_none_of_its_powers_but_to_hand_it_over(
    configured: dict[str, str],
) -> None:
    fetch = configured["/etc/systemd/system/dkim-key.service"].splitlines()

    # The metadata service gives the role's credentials to root only.
    assert not [line for line in fetch if line.startswith(("User=", "Group=", "AmbientCap"))]
    assert "CapabilityBoundingSet=CAP_CHOWN" in fetch
    for word in ("NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes"):
        assert word in fetch


def test_debian_packages_are_named_once(files: dict[str, str]) -> None:
    assert files["/usr/local/lib/postern/packages"].split() == sorted(set(user_data.PACKAGES))
