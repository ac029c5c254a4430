"""`opendkim/fetch-dkim-key` with a stand-in for the AWS CLI."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import user_data

PROGRAM = Path(user_data.__file__).parent / "opendkim/fetch-dkim-key"
KEY = "-----BEGIN PRIVATE KEY-----\nnot really\n-----END PRIVATE KEY-----\n"
CREATED = "2026-05-26T02:11:29.123000+00:00"
SECRET = {"domain": "mail.example.com", "selector": "s1", "private_key": KEY, "record": '"v=DKIM1"'}


def answer_with(secret_string: str) -> str:
    """What the AWS CLI prints for a secret with this text."""
    return json.dumps([secret_string, CREATED])


def fetch(
    folder: Path, answer: str, *, status: int = 0, words: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the program with an AWS CLI that prints `answer`, and `words` on standard error.

    `folder` stands for /run.
    """
    (folder / "answer").write_text(answer)
    (folder / "words").write_text(words)
    aws = folder / "aws"
    aws.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/asked\ncat {folder}/answer\n'
        f"cat {folder}/words >&2\nexit {status}\n"
    )
    aws.chmod(0o755)
    for directory in ("dkim-key", "postern"):
        (folder / directory).mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, PROGRAM],
        check=False,
        capture_output=True,
        text=True,
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "RUNTIME_DIRECTORY": str(folder / "dkim-key"),
            "REGION": "us-east-1",
            "DKIM_SECRET_ARN": "arn:secret",
            "SENDING_DOMAIN": "mail.example.com",
            "DKIM_SELECTOR": "s1",
        },
    )


def test_the_key_goes_into_its_file_and_nowhere_else(tmp_path: Path) -> None:
    fetched = fetch(tmp_path, answer_with(json.dumps(SECRET)))

    assert (tmp_path / "dkim-key/private.pem").read_text() == KEY
    assert (fetched.returncode, fetched.stdout, fetched.stderr) == (0, "", "")
    assert "--secret-id arn:secret" in (tmp_path / "asked").read_text()


def test_the_keys_date_is_left_for_the_report(tmp_path: Path) -> None:
    fetch(tmp_path, answer_with(json.dumps(SECRET)))

    assert (tmp_path / "postern/dkim-key-created").read_text() == f"{CREATED}\n"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (json.dumps(SECRET | {"selector": "s0"}), "holds the key of {'domain': 'mail.example.com'"),
        (
            json.dumps(SECRET | {"domain": "example.org"}),
            "holds the key of {'domain': 'example.org'",
        ),
        (KEY, "the secret is not JSON with domain, selector and private_key"),
        (json.dumps({"private_key": KEY}), "the secret is not JSON with domain"),
        (json.dumps([KEY]), "the secret is not JSON with domain"),
    ],
)
def test_a_secret_that_is_not_this_hosts_is_refused_without_quoting_it(
    tmp_path: Path, answer: str, problem: str
) -> None:
    refused = fetch(tmp_path, answer_with(answer))

    assert refused.returncode == 1
    assert problem in refused.stderr
    assert "PRIVATE" not in refused.stderr
    assert not (tmp_path / "dkim-key/private.pem").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("AccessDeniedException: not authorized", "secretsmanager-get-secret-value-failed"),
        ("Read timeout on endpoint URL", "secretsmanager-get-secret-value-failed"),
        ("Unable to locate credentials.", "instance-metadata-not-answering"),
    ],
)
def test_the_call_that_failed_is_named_until_aws_gives_the_secret(
    tmp_path: Path, words: str, reason: str
) -> None:
    failure = tmp_path / "postern/failure"

    refused = fetch(tmp_path, "", status=254, words=words)

    assert refused.returncode == 1
    assert f"fetch-dkim-key: {reason}: {words}" in refused.stderr
    assert failure.read_text() == reason

    assert fetch(tmp_path, answer_with(json.dumps(SECRET))).returncode == 0
    assert not failure.exists()
