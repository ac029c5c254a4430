"""Postfix with OpenDKIM, as Debian ships them, and tuned as Postfix's own documentation says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.host import Contender, Identity

_KEY = "/etc/dkimkeys/bench.private"
_SETTINGS = "/etc/bench/settings"
_SPOOL = "/var/spool/postfix"
_SOCKET = f"{_SPOOL}/opendkim/opendkim.sock"

# Debian's opendkim.conf with what no installation can do without, by README.Debian of the package:
# whose mail is signed, with which key, and a socket that Postfix reaches.
_OPENDKIM = f"""\
Syslog                  yes
SyslogSuccess           yes
Canonicalization        relaxed/simple
OversignHeaders         From
UserID                  opendkim
UMask                   007
PidFile                 /run/opendkim/opendkim.pid
TrustAnchorFile         /usr/share/dns/root.key
Domain                  @DOMAIN@
Selector                @SELECTOR@
KeyFile                 {_KEY}
Socket                  local:{_SOCKET}
"""

NEEDED: Mapping[str, str] = {
    "myhostname=@DOMAIN@": "the name that every contender has",
    "myorigin=@DOMAIN@": "the domain of unqualified addresses",
    "mydestination=localhost": "the sending domain has no mailboxes",
    "inet_protocols=ipv4": "the VPC has no IPv6",
    "smtpd_milters=unix:opendkim/opendkim.sock": "what comes by SMTP is signed",
    "non_smtpd_milters=unix:opendkim/opendkim.sock": "and what comes by sendmail",
}
"""What Debian's Postfix needs beside its own main.cf, and why."""

TUNED: Mapping[str, str] = {
    "default_process_limit=400": (
        '"Tuning the number of Postfix processes": the limit of 100 SMTP clients is what bounds '
        "deliveries to receivers that are far away"
    ),
    "smtp_destination_concurrency_limit=100": (
        '"Tuning the number of simultaneous deliveries": 50 or 100, rather than 20, where a large '
        "part of the mail goes to one destination that can take it"
    ),
    "initial_destination_concurrency=20": (
        "the same section: how many deliveries a destination gets before it has shown what it takes"
    ),
    "in_flow_delay=0s": (
        '"General mail delivery performance tips": the pause that keeps arrivals from outrunning '
        "deliveries; here the sessions are few"
    ),
    "smtp_connect_timeout=5s": (
        '"General mail delivery performance tips": waste no time on servers that do not answer'
    ),
    "smtp_helo_timeout=10s": "the same",
    "smtp_connection_cache_on_demand=yes": "connections are used again while a domain has mail",
}
"""Each setting and the section of TUNING_README that it follows.

Its other advice is kept by all contenders: a caching resolver on the host (systemd-resolved), no
header or body checks, mail in by SMTP, local clients outside anvil's limits.
"""

_SET_UP = f"""
install --directory --owner=opendkim --group=postfix --mode=0750 {_SPOOL}/opendkim
chown opendkim: {_KEY}
usermod --append --groups opendkim postfix
mapfile -t settings < {_SETTINGS}
postconf -e "${{settings[@]}}"
systemctl restart opendkim.service
systemctl enable --quiet postfix.service
systemctl restart postfix.service
for attempt in $(seq 100); do
    if (exec 3<>/dev/tcp/127.0.0.1/25) 2>/dev/null && [ -S {_SOCKET} ]; then exit 0; fi
    sleep 0.2
done
echo "nobody listens on port 25, or no signer at {_SOCKET}" >&2
exit 1
"""


def contender(*, tuned: bool) -> Contender:
    """Postfix as Debian ships it, or tuned."""
    changed = {**NEEDED, **(TUNED if tuned else {})}
    return Contender(
        name="postfix-tuned" if tuned else "postfix",
        image="postfix",
        title="Postfix + OpenDKIM, "
        + ("tuned as its TUNING_README says" if tuned else "as Debian 13 ships them"),
        queue=_SPOOL,
        files=lambda identity, _: _files(identity, changed),
        set_up=_SET_UP,
        mta_units=("postfix.service", "postfix@-.service"),
        signer_units=("opendkim.service",),
        queued=f"find {_SPOOL}/{{maildrop,incoming,active,deferred}} -type f | wc --lines",
        untried=f"find {_SPOOL}/{{maildrop,incoming,active}} -type f | wc --lines",
        flush="postqueue -f",
        clear="postsuper -d ALL >/dev/null",
        configuration=changed,
    )


def _files(identity: Identity, settings: Iterable[str]) -> Mapping[str, tuple[int, str]]:
    def filled_in(text: str) -> str:
        return text.replace("@DOMAIN@", identity.sending_domain).replace(
            "@SELECTOR@", identity.selector
        )

    return {
        "/etc/opendkim.conf": (0o644, filled_in(_OPENDKIM)),
        _SETTINGS: (0o644, "".join(f"{filled_in(setting)}\n" for setting in settings)),
        _KEY: (0o600, identity.private_key),
    }
