"""What a receiver made of one message, and what a sender has to conclude from it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

UNKNOWN = "unknown"
"""In place of a result that the receiver did not give, which is not the same as a good one."""

_UNSAID = "The receiver did not say."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One message at one receiver.

    Results are the words of RFC 8601 ("pass", "fail", "none", "permerror", ...), or `UNKNOWN`, as
    in part for a refused message. A missing text is "".
    """

    receiver: str
    """The receiver's host name, which is also its authserv-id."""
    message_id: str
    """With its angle brackets."""
    subject: str
    """Decoded (RFC 2047)."""
    from_domain: str
    """The domain of From:, which DMARC is about."""
    recipients: tuple[str, ...]
    mail_from: str
    """The envelope sender, "" for a bounce."""
    address: str
    """The IP address that the message came from."""
    helo: str
    reverse_dns: str
    """The name of `address` in reverse DNS; the second receiver gives it only if confirmed."""
    iprev: str
    """Whether that name resolves to `address` again (RFC 8601 section 3)."""
    tls: str
    """The protocol version, such as "TLSv1.3", or "" for plain text."""
    spf: str
    dkim: str
    dkim_domain: str
    """The signature's `d=`."""
    dmarc: str
    accepted: bool
    reply: str
    """The receiver's SMTP reply, where it is known."""
    path: Path | None
    """The received message, an .eml file; None when it was refused."""

    def to_json(self) -> str:
        """One JSON object, as `from_json` reads it."""
        fields = asdict(self)
        fields["path"] = None if self.path is None else str(self.path)
        return json.dumps(fields, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Verdict":
        """The verdict that `to_json` wrote."""
        fields = json.loads(text)
        fields["recipients"] = tuple(fields["recipients"])
        fields["path"] = None if fields["path"] is None else Path(fields["path"])
        return cls(**fields)


def passes(verdict: Verdict) -> bool:
    """Whether a strict receiver would find nothing to hold against the message."""
    return not faults(verdict)


def faults(verdict: Verdict) -> dict[str, str]:
    """Every check that failed, by its name, with a sentence about what the receiver saw.

    DMARC passes when either SPF or DKIM does, so it hides the failure of one of them: each is
    judged on its own, as large providers do (Google's sender guidelines).
    """
    return {
        check: sentence
        for check, sentence in (
            ("delivery", _delivery_fault(verdict)),
            ("SPF", _spf_fault(verdict)),
            ("DKIM", _dkim_fault(verdict)),
            ("DMARC", _dmarc_fault(verdict)),
            ("reverse DNS", _reverse_dns_fault(verdict)),
            ("HELO", _helo_fault(verdict)),
            ("TLS", _tls_fault(verdict)),
        )
        if sentence
    }


def _delivery_fault(verdict: Verdict) -> str:
    return "" if verdict.accepted else f"The message was refused: {verdict.reply}."


def _spf_fault(verdict: Verdict) -> str:
    if verdict.spf == "pass":
        return ""
    if verdict.spf == UNKNOWN:
        return _UNSAID
    sender = _domain(verdict.mail_from) or verdict.helo
    return f"spf={verdict.spf}: the SPF record of {sender} does not let {verdict.address} send."


def _dkim_fault(verdict: Verdict) -> str:
    if verdict.dkim == UNKNOWN:
        return _UNSAID
    if verdict.dkim != "pass":
        if not verdict.dkim_domain:
            return f"dkim={verdict.dkim}: no signature was verified."
        return (
            f"dkim={verdict.dkim}: the signature of {verdict.dkim_domain} does not fit the message "
            "or the key in its DNS."
        )
    if verdict.dkim_domain.lower() != verdict.from_domain.lower():
        return (
            f"dkim=pass, but for {verdict.dkim_domain}, which is not the domain of From:, "
            f"{verdict.from_domain}."
        )
    return ""


def _dmarc_fault(verdict: Verdict) -> str:
    if verdict.dmarc == "pass":
        return ""
    if verdict.dmarc == "none":
        return f"dmarc=none: {verdict.from_domain} publishes no DMARC policy."
    return f"dmarc={verdict.dmarc}: neither SPF nor DKIM vouches for {verdict.from_domain}."


def _reverse_dns_fault(verdict: Verdict) -> str:
    if verdict.iprev == "pass":
        return ""
    if not verdict.reverse_dns:
        return f"iprev={verdict.iprev}: {verdict.address} has no confirmed name in reverse DNS."
    return (
        f"iprev={verdict.iprev}: {verdict.address} is called {verdict.reverse_dns}, "
        "which does not resolve to that address."
    )


def _helo_fault(verdict: Verdict) -> str:
    if verdict.iprev != "pass" or verdict.helo.lower() == verdict.reverse_dns.lower():
        return ""
    return f"HELO said {verdict.helo}, but the reverse DNS name is {verdict.reverse_dns}."


def _tls_fault(verdict: Verdict) -> str:
    if verdict.tls == UNKNOWN:
        return _UNSAID
    return "" if verdict.tls else "The message came over an unencrypted connection."


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def table(verdicts: Sequence[Verdict]) -> Table:
    """For each message, what each receiver says about it, side by side."""
    receivers = sorted({verdict.receiver for verdict in verdicts})
    messages: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        messages.setdefault(verdict.message_id, {})[verdict.receiver] = verdict
    rows = Table(show_lines=False)
    rows.add_column("")
    for receiver in receivers:
        rows.add_column(receiver, overflow="fold")
    for by_receiver in messages.values():
        cells = [
            _cells(by_receiver[name]) if name in by_receiver else {"message": Text("not received")}
            for name in receivers
        ]
        for label in _cells(next(iter(by_receiver.values()))):
            rows.add_row(label, *(column.get(label, Text()) for column in cells))
        rows.add_section()
    return rows


def _cells(verdict: Verdict) -> dict[str, Text]:
    failed = faults(verdict)

    def judged(value: str, *checks: str) -> Text:
        sentences = [failed[check] for check in checks if check in failed]
        if sentences:
            return Text("✗ " + " ".join(sentences), style="red")
        return Text(f"✓ {value}", style="green")

    where = "refused" if verdict.path is None else str(_relative(verdict.path))
    return {
        "message": Text(verdict.subject or verdict.message_id),
        "arrived from": Text(verdict.address),
        "HELO": judged(verdict.helo, "HELO"),
        "reverse DNS": judged(verdict.reverse_dns, "reverse DNS"),
        "TLS": judged(verdict.tls, "TLS"),
        "SPF": judged(verdict.spf, "SPF"),
        "DKIM": judged(f"{verdict.dkim} ({verdict.dkim_domain})", "DKIM"),
        "DMARC": judged(verdict.dmarc, "DMARC"),
        "received": judged(where, "delivery"),
    }


def _relative(path: Path) -> Path:
    """`path` as seen from the working directory, where that is shorter."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
