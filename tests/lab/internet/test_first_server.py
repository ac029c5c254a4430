"""How the first receiver reads what it judges."""

import pytest

from lab.internet.receivers.first_server import domain_of


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("hello@Mail-Anna.Example.com", "mail-anna.example.com"),
        ('"a@b"@example.net', "example.net"),
    ],
)
def test_a_domain_is_read_as_a_whole(address: str, domain: str) -> None:
    assert domain_of(address) == domain


def test_without_a_domain_authheaders_hears_what_it_expects() -> None:
    with pytest.raises(IndexError):
        domain_of("mail.example.com")
