"""What is measured as Postern is what a deployment puts on a host."""

import pytest

from bench.contenders import NAMES, make
from bench.contenders.postern import deployed_files, of_a_deployment
from review.snapshots import host_files


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return {path: file.content for path, file in deployed_files().items()}


def test_the_host_gets_the_files_that_were_reviewed(files: dict[str, str]) -> None:
    reviewed = host_files()
    for path in ("/etc/mail/sendmail.mc", "/etc/mail/submit.mc", "/usr/local/sbin/postern-setup"):
        text = files[path].replace("mail.example.com", "@SENDING_DOMAIN@")
        assert f"---- {path} (" in reviewed
        assert text in reviewed


def test_no_value_of_a_deployment_is_left_open(files: dict[str, str]) -> None:
    settings = of_a_deployment(files["/etc/postern/settings"], "vol-1")
    assert "<" not in settings
    assert "SENDING_DOMAIN=mail.example.com\n" in settings
    assert "QUEUE_VOLUME_ID=vol-1\n" in settings


@pytest.mark.parametrize("name", [name for name in NAMES if name != "postern"])
def test_each_setting_of_a_contender_has_a_reason(name: str) -> None:
    assert all(make(name).configuration.values())
    assert make(name).name == name
