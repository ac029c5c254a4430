"""The names of a bench: who sends, whom to, and the zones that say where that is."""

from __future__ import annotations

from ipaddress import IPv4Address

DOMAIN = "bench.example"
BIG_DOMAIN = f"big.{DOMAIN}"
MANY = 200
"""How many recipient domains there are beside the big one."""

NAME_SERVER = IPv4Address("198.51.100.53")
SINK_ADDRESSES = tuple(IPv4Address(f"198.51.100.{last}") for last in (25, 26, 27, 80))
"""Where the sink listens: addresses that `lab.network` gives the Internet's namespace."""

_START = """\
{zone} 3600 IN SOA ns.{domain}. postmaster.{domain}. 1 3600 600 86400 60
{zone} 3600 IN NS ns.{domain}.
"""


def recipient_domain(number: int, *, domains: int) -> str:
    """The recipient domain of message `number` when there are so many; one is the big one."""
    return BIG_DOMAIN if domains == 1 else f"d{number % domains}.{DOMAIN}"


def zone_files(*, sending_domain: str, sender: IPv4Address) -> dict[str, str]:
    """Zone name to zone file: the recipient domains, the sending domain, and nothing else exists.

    Each recipient domain has a mail server of its own name, as strangers have; they share the
    sink's few addresses.
    """
    names = [BIG_DOMAIN, *(f"d{number}.{DOMAIN}" for number in range(MANY))]
    recipients = "".join(
        f"{name}. 3600 IN MX 10 mx.{name}.\n"
        f"mx.{name}. 3600 IN A {SINK_ADDRESSES[number % len(SINK_ADDRESSES)]}\n"
        for number, name in enumerate(names)
    )
    parent = sending_domain.partition(".")[2]
    return {
        ".": _START.format(zone=".", domain=DOMAIN)
        + _delegated(f"{DOMAIN}.")
        + _delegated(f"{parent}."),
        f"{DOMAIN}.": _START.format(zone=f"{DOMAIN}.", domain=DOMAIN)
        + f"ns.{DOMAIN}. 3600 IN A {NAME_SERVER}\n"
        + recipients,
        f"{parent}.": _START.format(zone=f"{parent}.", domain=DOMAIN)
        + f"{sending_domain}. 3600 IN A {sender}\n",
    }


def _delegated(zone: str) -> str:
    return f"{zone} 3600 IN NS ns.{DOMAIN}.\nns.{DOMAIN}. 3600 IN A {NAME_SERVER}\n"
