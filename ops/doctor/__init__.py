"""Everything that a healthy environment is, looked at from outside and from its hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable

import checkdmarc.utils
from botocore.exceptions import BotoCoreError, ClientError
from dns.exception import DNSException

from ops.deployment import CannotTell, Deployment
from ops.dns_answers import Dns
from ops.doctor import (
    addresses,
    blocklists,
    dkim,
    dmarc,
    dns_records,
    mail_hosts,
    monitoring,
    nat_gateways,
    queue_volumes,
    spf,
    stacks_as_set,
)
from ops.doctor.facts import Facts
from ops.doctor.untold import untold
from ops.verdicts import Finding

Check = Callable[[Facts], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "Stacks": stacks_as_set.check_stacks,
    "Settings and SendingIdentity": stacks_as_set.check_identity,
    "Settings and mail hosts": stacks_as_set.check_mail_hosts,
    "DNS records": dns_records.check_records,
    "Delegation": dns_records.check_delegation,
    "Null MX": dns_records.check_null_mx,
    "Addresses": addresses.check_addresses,
    "SPF": spf.check_spf,
    "DKIM keys": dkim.check_keys,
    "Age of the DKIM keys": dkim.check_age,
    "DMARC": dmarc.check_dmarc,
    "Hosts": mail_hosts.check_mail_hosts,
    "Queue volumes": queue_volumes.check_queue_volumes,
    "Blocklists": blocklists.check_blocklists,
    "NAT gateways": nat_gateways.check_nat_gateways,
    "Ports of the NAT gateways": nat_gateways.check_port_errors,
    "Alarms": monitoring.check_alarms,
    "Alerts": monitoring.check_subscriptions,
}
"""Each check by the name under which it says that it could not tell."""

# Of a host that does not answer, and everything else is there long before.
SECONDS = 55

_EXPECTED = (CannotTell, BotoCoreError, ClientError, DNSException, OSError)


def examine(
    deployment: Deployment, dns: Dns, *, seconds: float = SECONDS, without: Collection[str] = ()
) -> list[Finding]:
    """What every check but those of `without` finds, in the order of `CHECKS`.

    They run at the same time. One that AWS or DNS leaves without an answer, or that has not ended
    after `seconds`, is a finding that could not be told, and the others say what they found.
    """
    checkdmarc.utils.DNS_CACHE.clear()  # it would remember what the last look saw for half an hour
    facts = Facts(deployment, dns)
    found: dict[str, list[Finding]] = {}
    errors: list[Exception] = []

    def look(name: str, check: Check) -> None:
        findings: list[Finding] = []
        try:
            for finding in check(facts):  # what was found before an error stays
                findings.append(finding)  # noqa: PERF402 - extend() does not promise that
        except _EXPECTED as error:
            findings.append(untold(name, str(error)))
        except Exception as error:  # raised again, in the thread that is heard
            errors.append(error)
        found[name] = findings

    # Daemons, as no executor's threads are: nobody waits for one that is given up, nor on Ctrl-C.
    checks = {name: check for name, check in CHECKS.items() if name not in without}
    threads = [threading.Thread(target=look, args=check, daemon=True) for check in checks.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    late = f"no answer within {seconds:g} s"
    nothing = "nothing of the kind is deployed"
    return [
        finding
        for name in checks
        for finding in found.get(name) or [untold(name, nothing if name in found else late)]
    ]
