"""An environment's file and a suffix are an environment of its own, which takes nothing kept."""

from typing import Final

import pytest

from stacks.environment import InvalidEnvironment, load
from tests.environments.conftest import WriteEnvironment

KEPT = """[clients]
cidrs = ["10.20.0.0/16"]
credentials = ["web"]
[delivery]
order = 1
[elastic_ips.us-east-1a]
allocation_id = "eipalloc-0123456789abcdef0"
address = "203.0.113.10"
[queue_volumes.us-east-1a]
volume_id = "vol-0123456789abcdef0"
"""
OWN: Final = {
    "suffix",
    "sending_domain",
    "keep_identity",
    "clients",
    "delivery",
    "elastic_ips",
    "queue_volumes",
}


def test_a_sandbox_is_as_its_file_but_for_what_must_be_its_own(
    write_environment: WriteEnvironment,
) -> None:
    path = write_environment(("[tags]", KEPT + "[tags]"), name="dev.toml")
    shared, sandbox = load(path), load(path, suffix="anna")
    assert sandbox.name == "dev-anna"
    assert sandbox.sending_domain == "mail-anna.example.com"
    assert not sandbox.keep_identity
    assert sandbox.clients is None
    assert (sandbox.delivery, sandbox.elastic_ips, sandbox.queue_volumes) == (None, {}, {})
    assert sandbox.model_dump(exclude=OWN) == shared.model_dump(exclude=OWN)
    different = {key for key in OWN if getattr(sandbox, key) != getattr(shared, key)}
    assert different == OWN, "the comparison above left out what it need not"


FAULTS = {
    "capital letter": ("Anna", "at most 20 lower-case letters, digits and inner hyphens"),
    "empty": ("", "at most 20 lower-case letters"),
    "dot": ("a.b", "inner hyphens"),
    "hyphen at its end": ("anna-", "inner hyphens"),
    "space": ("anna ", "inner hyphens"),
    "too long": ("a" * 21, "at most 20"),
    "name of another file": ("eu", "would be an environment of {folder}/dev-eu.toml"),
    "name of another file's sandbox": ("eu-anna", "choose another suffix"),
}


@pytest.mark.parametrize(("suffix", "remedy"), FAULTS.values(), ids=list(FAULTS))
def test_a_suffix_that_cannot_be_is_told_with_the_remedy(
    write_environment: WriteEnvironment, suffix: str, remedy: str
) -> None:
    path = write_environment(name="dev.toml")
    write_environment(name="dev-eu.toml")
    with pytest.raises(InvalidEnvironment) as raised:
        load(path, suffix=suffix)
    assert str(raised.value).startswith(f"{path}: POSTERN_SUFFIX: ")
    assert remedy.format(folder=path.parent) in str(raised.value)


def test_no_sandbox_has_two_files(write_environment: WriteEnvironment) -> None:
    """dev-eu-anna is of dev-eu; a longer name that only begins like a file's is nobody's yet."""
    path = write_environment(name="dev.toml")
    other = write_environment(name="dev-eu.toml")
    assert load(other, suffix="anna").name == "dev-eu-anna"
    assert load(path, suffix="eugen").name == "dev-eugen"


def test_a_name_that_gets_too_long_is_told(write_environment: WriteEnvironment) -> None:
    path = write_environment(name=f"{'d' * 25}.toml")
    assert len(load(path, suffix="annas").name) == 31
    with pytest.raises(InvalidEnvironment, match=r"POSTERN_SUFFIX: .*31 characters are the most"):
        load(path, suffix="annass")


def test_a_sending_domain_that_gets_too_long_is_told_as_the_suffixs_fault(
    write_environment: WriteEnvironment,
) -> None:
    domain = f"{'m' * 50}.example.com"
    path = write_environment(
        ('sending_domain = "mail.example.com"', f'sending_domain = "{domain}"')
    )
    assert load(path, suffix="a").sending_domain.startswith("mmm")
    with pytest.raises(InvalidEnvironment) as raised:
        load(path, suffix="anna")
    message = str(raised.value)
    assert message.startswith(f'{path}: POSTERN_SUFFIX: "anna" makes another sending_domain: ')
    assert message.endswith("it has 67: write a shorter one; choose another suffix")


def test_a_fault_of_the_file_is_told_as_without_a_suffix(
    write_environment: WriteEnvironment,
) -> None:
    path = write_environment(('"111122223333"', '"1"'))
    with pytest.raises(InvalidEnvironment, match=r"prod\.toml: account: "):
        load(path, suffix="anna")


def test_a_report_service_that_wants_the_files_reports_is_asked_for_the_sandboxs(
    write_environment: WriteEnvironment,
) -> None:
    """Its record may be for all domains; if it is not, the sandbox gets no reports."""
    path = write_environment(
        ('"dmarc-reports@example.com"', '"us@reports.example.net"'),
        ("external_report_authorised = false", "external_report_authorised = true"),
    )
    assert load(path, suffix="anna").dmarc.external_report_authorised
