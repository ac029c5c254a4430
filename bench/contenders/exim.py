"""Exim as Debian ships it, for a host on the Internet, with the signer that is built in."""

from __future__ import annotations

from collections.abc import Mapping

from bench.host import Contender, Identity

_KEY = "/etc/exim4/dkim.key"
_SPOOL = "/var/spool/exim4"

# Debian's own words for an Internet site; it asks for them when the package is configured.
_DEBCONF = """\
dc_eximconfig_configtype='internet'
dc_other_hostnames=''
dc_local_interfaces='127.0.0.1'
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='false'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
"""

NEEDED: Mapping[str, str] = {
    "DKIM_DOMAIN=@DOMAIN@": "signs with the signer that is built in",
    "DKIM_SELECTOR=@SELECTOR@": "the same",
    f"DKIM_PRIVATE_KEY={_KEY}": "the same",
    "DKIM_CANON=relaxed": "as the others' signatures",
    "MAIN_HARDCODE_PRIMARY_HOSTNAME=@DOMAIN@": "the name that every contender has",
    "smtp_accept_max=100": "its limit of 20 connections refuses some of 20 sessions",
    "smtp_accept_queue_per_connection=0": (
        "by itself it lets what follows the tenth message of a connection wait for the next queue "
        "run, half an hour away"
    ),
}
"""What Debian's Exim needs beside its own configuration, and why."""

_SET_UP = f"""
chown root:Debian-exim {_KEY}
systemctl enable --quiet exim4.service
systemctl restart exim4.service
for attempt in $(seq 100); do
    if (exec 3<>/dev/tcp/127.0.0.1/25) 2>/dev/null; then exit 0; fi
    sleep 0.2
done
echo "nobody listens on port 25" >&2
exit 1
"""


def contender() -> Contender:
    """Exim as Debian ships it."""
    return Contender(
        name="exim",
        image="exim",
        title="Exim with its built-in signer, as Debian 13 ships it",
        queue=_SPOOL,
        files=lambda identity, _: _files(identity),
        set_up=_SET_UP,
        mta_units=("exim4.service", "bench-flush.service"),
        signer_units=(),
        queued=f"find {_SPOOL}/input -name '*-H' | wc --lines",
        # It tries each at once, and its log of a message begins with that.
        untried=f"cd {_SPOOL}/input; for header in *-H; do "
        f"[[ ! -e $header || -e ../msglog/${{header%-H}} ]] || echo; done | wc --lines",
        # A queue run lasts until it has tried everything, one message after another.
        flush="systemctl is-active --quiet bench-flush ||"
        " systemd-run --quiet --collect --unit=bench-flush exim4 -qff",
        clear=f"""
            systemctl stop exim4
            find {_SPOOL}/input {_SPOOL}/msglog {_SPOOL}/db -type f -delete
            systemctl start exim4
        """,
        configuration=NEEDED,
    )


def _files(identity: Identity) -> Mapping[str, tuple[int, str]]:
    macros = "".join(f"{setting}\n" for setting in NEEDED)
    return {
        "/etc/exim4/update-exim4.conf.conf": (0o644, _DEBCONF),
        "/etc/exim4/exim4.conf.localmacros": (
            0o644,
            macros.replace("@DOMAIN@", identity.sending_domain).replace(
                "@SELECTOR@", identity.selector
            ),
        ),
        _KEY: (0o640, identity.private_key),
    }
