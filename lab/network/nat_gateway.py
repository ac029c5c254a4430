"""The packet filter of one availability zone's NAT gateway, as nftables text."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

# The interfaces of a `nat-<zone>` namespace.
VPC_INTERFACE = "vpc"
INTERNET_INTERFACE = "internet"
PEER_INTERFACE = "peer"  # to a VPC that is peered with this one: where clients are

_CLOSED = """\
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
"""

_OPEN = """\
    chain forward {{
        type filter hook forward priority filter; policy drop;
{smtp_block}\
        ct state established,related accept
        iifname "{vpc}" oifname "{internet}" ip saddr {private} accept
        iifname "{peer}" oifname "{vpc}" ct status dnat accept
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{internet}" ip saddr {private} snat to {elastic_ip}
    }}
"""

# As AWS does until it lifts the block on request: packets vanish, nobody is told.
_SMTP_BLOCK = """\
        tcp dport 25 drop
"""

_TABLE = """\
table ip nat_gateway {{}}
delete table ip nat_gateway
table ip nat_gateway {{
{chains}\
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{internet}" ct state new drop
    }}
}}
"""


def ruleset(
    private: IPv4Network | None, elastic_ip: IPv4Address | None, *, smtp_blocked: bool
) -> str:
    """The whole table, replacing the previous one in a single transaction.

    `private` may leave, and only under `elastic_ip`; without an address nothing leaves. Nothing
    new ever comes in.
    """
    if private is None or elastic_ip is None:
        chains = _CLOSED
    else:
        chains = _OPEN.format(
            vpc=VPC_INTERFACE,
            internet=INTERNET_INTERFACE,
            peer=PEER_INTERFACE,
            private=private,
            elastic_ip=elastic_ip,
            smtp_block=_SMTP_BLOCK if smtp_blocked else "",
        )
    return _TABLE.format(chains=chains, internet=INTERNET_INTERFACE)


def load_balancer_ruleset(
    forwards: Mapping[tuple[IPv4Address, int], tuple[IPv4Address, int]],
) -> str:
    """The table that stands for a Network Load Balancer, replacing the previous one.

    What goes to one of its listeners goes to a host instead, with the client's address kept, as
    it is for a target that is an instance. Nothing but this passes from a peered VPC to a host.
    """
    rules = "".join(
        f"        ip daddr {listener} tcp dport {port} dnat to {host}:{host_port}\n"
        for (listener, port), (host, host_port) in sorted(forwards.items())
    )
    return (
        "table ip load_balancer {}\ndelete table ip load_balancer\n"
        "table ip load_balancer {\n    chain prerouting {\n"
        "        type nat hook prerouting priority dstnat; policy accept;\n"
        f"{rules}    }}\n}}\n"
    )
