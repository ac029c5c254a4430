"""The second receiver, mx.example.org: Postfix, policyd-spf, OpenDKIM and OpenDMARC.

Debian's own packages in a directory tree of their own. Their configuration files, as they lie in
that tree, are in `second_receiver_files`.
"""

import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

from lab.internet import addresses
from lab.internet.certificates import Certificate
from lab.internet.receivers.inbox import (
    Inbox,
    authentication_results,
    from_domain,
    parse_headers,
)
from lab.internet.service import Service, stop_together
from lab.internet.verdict import UNKNOWN, Verdict
from lab.network.namespace import command_in

_FILES = Path(__file__).with_name("second_receiver_files")
_MAILDIR = Path("var/mail/inbox/new")
_LOG = Path("var/log/postfix.log")

# Postfix, smtpd_tls_received_header: from HELO (NAME [ADDRESS]) (using TLSv1.3 with cipher ...)
_RECEIVED = re.compile(
    r"from (?P<helo>\S+) \((?P<name>\S+) \[(?P<address>[\d.]+)\]\)"
    r"(?:\s+\(using (?P<tls>\S+) with cipher)?"
)
_MESSAGE_ID = re.compile(r"cleanup\[\d+\]: (?P<queue_id>\w+): message-id=(?P<message_id>.*)$")
_REFUSED = re.compile(
    r"cleanup\[\d+\]: (?P<queue_id>\w+): milter-reject: END-OF-MESSAGE "
    r"from (?P<name>[^\[]+)\[(?P<address>[\d.]+)\]: "
    r"(?P<reply>5\.[^;]* policy for (?P<from_domain>[^;]+)); "
    r"from=<(?P<mail_from>[^>]*)> to=<(?P<recipient>[^>]*)> proto=\w+ helo=<(?P<helo>[^>]*)>"
)


class SecondReceiver:
    """Takes mail for example.org as a Debian mail server would: what fails DMARC is refused."""

    name = addresses.SECOND_RECEIVER_NAME

    def __init__(
        self, *, root: Path, namespace: str, certificate: Certificate, received: Path, logs: Path
    ) -> None:
        """Describe the receiver; nothing runs yet.

        `root` is a writable tree with the packages installed, `received` the directory for its
        messages, `logs` the one for its programs' logs.
        """
        self._root = root
        self._certificate = certificate
        self._inbox = Inbox(received)
        self._collecting = threading.Lock()
        self._log_position = 0
        self._message_ids: dict[str, str] = {}

        def program(
            name: str, argv: list[str], *listens: tuple[str, int], wrapped_in: Sequence[str] = ()
        ) -> Service:
            return Service(
                name=f"{self.name}'s {name}",
                command=command_in(namespace, [*wrapped_in, "chroot", str(root), *argv]),
                namespace=namespace,
                log=logs / f"{name}.log",
                listens=listens,
            )

        self._programs = (
            program("opendkim", ["opendkim", "-f"], ("127.0.0.1", 8892)),
            program("opendmarc", ["opendmarc", "-f"], ("127.0.0.1", 8893)),
            # As PID 1 of a namespace of its own, so that Postfix's many processes end with it.
            program(
                "postfix",
                ["postfix", "start-fg"],
                (addresses.SECOND_RECEIVER, 25),
                wrapped_in=["unshare", "--pid", "--fork", "--kill-child"],
            ),
        )

    def start(self) -> None:
        """Forget earlier messages, configure, and listen."""
        self._inbox.empty()
        self._configure()
        for program in self._programs:
            program.start()
        for program in self._programs:
            program.wait_until_ready()

    def stop(self) -> None:
        """Stop listening; the messages stay."""
        stop_together(self._programs)

    def messages(self) -> list[Verdict]:
        """What was received, or refused because of DMARC, since the start; oldest first."""
        with self._collecting:
            for file in sorted((self._root / _MAILDIR).glob("*")):
                message = file.read_bytes()
                self._inbox.add(parse_delivered(parse_headers(message), self.name), message)
                file.unlink()
            for verdict in self._refused():
                self._inbox.add(verdict, None)
            return self._inbox.verdicts()

    def _configure(self) -> None:
        shutil.copytree(_FILES, self._root, dirs_exist_ok=True)
        (self._root / "etc/resolv.conf").write_text(f"nameserver {addresses.NAME_SERVER}\n")
        tls = self._root / "etc/postfix/tls"
        tls.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self._certificate.certificate, tls / "certificate.pem")
        shutil.copy(self._certificate.key, tls / "key.pem")
        maildir = self._root / _MAILDIR.parent
        maildir.mkdir(parents=True, exist_ok=True)
        shutil.chown(maildir, "nobody", "nogroup")

    def _refused(self) -> Iterator[Verdict]:
        """Verdicts from the whole lines that Postfix has logged since the last call."""
        log = self._root / _LOG
        if not log.exists():
            return
        with log.open("rb") as lines:
            lines.seek(self._log_position)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._log_position += len(whole)
        yield from parse_refusals(whole.decode("utf-8", "replace"), self._message_ids, self.name)


def parse_delivered(headers: EmailMessage, receiver: str) -> Verdict:
    """The verdict in the headers that Postfix and its filters put on a message.

    Raises:
        ValueError: the topmost Received header is not Postfix's.
    """
    # Delivery into the Maildir has no Received of its own, so the topmost is the SMTP server's.
    received = " ".join(str(headers.get("Received", "")).split())
    hop = _RECEIVED.match(received)
    if hop is None:
        raise ValueError(f"Not a Received header of Postfix's SMTP server: {received!r}")
    results = authentication_results(headers, receiver)

    def result(method: str) -> str:
        return results.get(method, {}).get("result", "none")

    # Postfix gives a name only when it resolves to the address again.
    confirmed = hop["name"] != "unknown"
    return Verdict(
        receiver=receiver,
        message_id=str(headers.get("Message-ID", "")).strip(),
        subject=str(headers.get("Subject", "")),
        from_domain=from_domain(headers),
        recipients=tuple(headers.get_all("X-Envelope-To", [])),
        mail_from=str(headers.get("Return-Path", "")).strip("<>"),
        address=hop["address"],
        helo=hop["helo"],
        reverse_dns=hop["name"] if confirmed else "",
        iprev="pass" if confirmed else "fail",
        tls=hop["tls"] or "",
        spf=result("spf"),
        dkim=result("dkim"),
        dkim_domain=results.get("dkim", {}).get("header.d", ""),
        dmarc=result("dmarc"),
        accepted=True,
        reply="250 2.0.0 Ok",
        path=None,
    )


def parse_refusals(log: str, message_ids: dict[str, str], receiver: str) -> Iterator[Verdict]:
    """A verdict for each message that a filter refused, from lines of Postfix's log.

    `message_ids` maps queue ids to Message-IDs, and learns from `log`. OpenDMARC is the only filter
    here that refuses, so such a message has failed DMARC; Postfix logs no other result.
    """
    for line in log.splitlines():
        if named := _MESSAGE_ID.search(line):
            message_ids[named["queue_id"]] = named["message_id"]
        elif refused := _REFUSED.search(line):
            confirmed = refused["name"] != "unknown"
            yield Verdict(
                receiver=receiver,
                message_id=message_ids.get(refused["queue_id"], ""),
                subject="",
                from_domain=refused["from_domain"],
                recipients=(refused["recipient"],),
                mail_from=refused["mail_from"],
                address=refused["address"],
                helo=refused["helo"],
                reverse_dns=refused["name"] if confirmed else "",
                iprev="pass" if confirmed else "fail",
                tls=UNKNOWN,
                spf=UNKNOWN,
                dkim=UNKNOWN,
                dkim_domain="",
                dmarc="fail",
                accepted=False,
                reply=f"550 {refused['reply']}",
                path=None,
            )
