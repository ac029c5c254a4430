"""What the Debian mirror is made from, and when it is made anew."""

import datetime
from pathlib import Path

import pytest

from lab.instance.mirror import is_fresh, parse_print_uris

NOW = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    for suite, validity in (
        ("debian/dists/trixie", ""),  # the main archive never expires
        ("security/dists/trixie-security", "Valid-Until: Tue, 24 Nov 2026 18:00:00 UTC\n"),
    ):
        release = tmp_path / suite / "InRelease"
        release.parent.mkdir(parents=True)
        release.write_text(f"Origin: Debian\nDate: Tue, 17 Nov 2026 18:00:00 UTC\n{validity}")
    return tmp_path


def test_a_mirror_is_used_while_apt_accepts_its_signatures(mirror: Path) -> None:
    assert is_fresh(mirror, NOW)


def test_a_mirror_is_made_anew_before_its_signatures_expire(mirror: Path) -> None:
    assert not is_fresh(mirror, NOW + datetime.timedelta(hours=5))


def test_a_mirror_that_was_never_made_is_not_fresh(tmp_path: Path) -> None:
    assert not is_fresh(tmp_path / "missing", NOW)


def test_downloads_are_read_from_apts_answer_among_its_other_lines() -> None:
    answer = """\
Reading package lists...
The following NEW packages will be installed:
  sendmail-bin
'http://debian.example.edu/debian/pool/main/d/dict/dict_1.2%2bb1_amd64.deb' \
dict_1.2+b1_amd64.deb 1024 SHA256:00ff
"""
    assert parse_print_uris(answer) == {
        "http://debian.example.edu/debian/pool/main/d/dict/dict_1.2%2bb1_amd64.deb": (
            "dict_1.2+b1_amd64.deb"
        )
    }
