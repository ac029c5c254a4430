"""`sendmail/sendmail`, what callers of `sendmail` get, around a stand-in for the real program."""

import signal
import subprocess
from pathlib import Path

import user_data

SCRIPT = Path(user_data.__file__).parent / "sendmail/sendmail"
TRY_AGAIN = 75  # EX_TEMPFAIL


def run(folder: Path, real: str, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """The exit status and the output of the script around a `real` program of shell commands."""
    program = folder / "real"
    program.write_text(f"#!/bin/sh\n{real}\n")
    program.chmod(0o755)
    script = folder / "sendmail"
    script.write_text(SCRIPT.read_text().replace("/usr/sbin/sendmail-mta", str(program)))
    script.chmod(0o755)
    done = subprocess.run(
        [script, *arguments],
        check=False,
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_ignore_nothing,
    )
    return done.returncode, done.stdout


def _ignore_nothing() -> None:
    """A shell cannot trap what whoever started these tests ignores, as nohup does."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def test_arguments_message_and_status_are_passed_on(tmp_path: Path) -> None:
    real = 'for one; do echo "<$one>"; done; cat; exit 67'

    assert run(tmp_path, real, "-f", "a b", "", "-t", stdin="Subject: x\n") == (
        67,
        "<-f>\n<a b>\n<>\n<-t>\nSubject: x\n",
    )


def test_without_an_interruption_what_was_sent_was_sent(tmp_path: Path) -> None:
    assert run(tmp_path, "exit 0") == (0, "")


def test_who_is_interrupted_is_told_to_try_again_though_the_program_says_that_all_is_well(
    tmp_path: Path,
) -> None:
    """As systemd does: the signal goes to every process of the service, the caller's first."""
    for name in ("TERM", "INT", "HUP"):
        real = f"trap 'exit 0' {name}; kill -s {name} $PPID $$; exit 1"
        assert run(tmp_path, real) == (TRY_AGAIN, ""), name


def test_a_host_that_is_drained_takes_no_mail_by_it_and_does_all_else(tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    mark.touch()
    run(tmp_path, "exit 0")  # writes the script
    script = tmp_path / "sendmail"
    script.write_text(script.read_text().replace("/var/spool/queue/closed", str(mark)))

    def status(*arguments: str) -> int:
        return subprocess.run([script, *arguments], check=False, capture_output=True).returncode

    for submits in (["-t", "-oi"], ["-bm", "a@example.net"], ["-bs"], ["--", "-bp@example.net"]):
        assert status(*submits) == TRY_AGAIN, submits
    for other in (["-bp"], ["-q"], ["-qR@"], ["-d0.1", "-bt"], ["-bv", "a@example.net"], ["-bi"]):
        assert status(*other) == 0, other
    mark.unlink()
    assert status("-t") == 0
