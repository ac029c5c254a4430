"""The DNS of a bench: nsd, without the rate limit that Debian's has, which would stall it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from bench.names import NAME_SERVER
from lab.internet.service import Service
from lab.network import INTERNET
from lab.network.namespace import command_in, entered

_FOLDER = "etc/nsd/bench"
_CONFIGURATION = f"""\
server:
    zonesdir: "/{_FOLDER}"
    zonelistfile: "/{_FOLDER}/list"
    xfrdfile: "/{_FOLDER}/xfrd.state"
    pidfile: ""
    server-count: 1
    rrl-ratelimit: 0
    ip-address: {NAME_SERVER}
remote-control:
    control-enable: no
"""
_ZONE = """\
zone:
    name: "{zone}"
    zonefile: "{file}"
"""


def start(*, root: Path, zones: Mapping[str, str], log: Path) -> Service:
    """Serve these zone files from `root`, a writable tree with nsd; return when they are served."""
    folder = root / _FOLDER
    folder.mkdir(parents=True)
    configuration = _CONFIGURATION
    for zone, text in zones.items():
        file = f"{zone}zone"
        (folder / file).write_text(text)
        configuration += _ZONE.format(zone=zone, file=file)
    (folder / "nsd.conf").write_text(configuration)
    command = ["chroot", str(root), "nsd", "-d", "-c", f"/{_FOLDER}/nsd.conf"]
    service = Service(
        name="nsd", command=command_in(INTERNET, command), namespace=INTERNET, log=log
    )
    service.start()
    for zone in zones:
        service.wait_until(partial(_serves, zone))
    return service


def _serves(zone: str) -> bool:
    with entered(INTERNET):
        try:
            answer = dns.query.udp(
                dns.message.make_query(zone, dns.rdatatype.SOA), str(NAME_SERVER), timeout=0.2
            )
        except (dns.exception.Timeout, OSError):
            return False
    return bool(answer.answer)
