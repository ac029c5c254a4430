"""Messages that break careless signers, each with what a receiver has to see of it.

A DKIM signature covers the message as the signer saw it. Whatever a mail server changes afterwards
(folding, encoding, dots, recipients) makes it fail, so each of these asks for one such change.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage, MIMEPart
from email.policy import default

from lab.internet.receivers.inbox import parse_headers

MAX_LINE_OCTETS = 998
"""Without the line ending (RFC 5322 section 2.1.1)."""

_ATTACHMENT_BYTES = 5 * 1024 * 1024
_TRACE_FIELDS = ("received", "delivered-to", "x-envelope-to")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A message to send, and what has to arrive."""

    name: str
    message_id: str
    """With its angle brackets."""
    subject: str
    content: bytes
    """For `sendmail -i -t`: lines end with LF, recipients are in the header."""
    recipients: tuple[str, ...]
    """Everyone who gets it, blind copies included."""
    blind: tuple[str, ...] = ()
    """Those among the recipients whom the others must not see."""
    text: str
    """The text part, with LF."""
    attachment: bytes | None = None


def catalogue(*, sender: str, domains: Sequence[str], token: str) -> tuple[Sample, ...]:
    """Every sample, from `sender` to recipients in each of `domains`.

    `token` is part of each subject and Message-ID, so that two rounds can be told apart.
    """
    writer = _Writer(sender, [f"someone@{domain}" for domain in domains], token)
    return (
        writer.write("plain", text="An ordinary message.\n"),
        _thirty_recipients(writer, domains),
        _long_header_lines(writer),
        _encoded_subject(writer),
        _raw_subject(writer),
        writer.write("8-bit-body", text="Grüße, 안녕하세요, здравствуйте\n" * 3),
        writer.write("dot-lines", text=".\n..\n.a dot first\n\n.\nand text after it\n.\n"),
        _large_attachment(writer),
        writer.write("empty-body", text=""),
        _blind_copy(writer, domains[-1]),
    )


def differences(sample: Sample, received: bytes, recipients: Collection[str]) -> list[str]:
    """What arrived otherwise than it was sent, in sentences; nothing when all is well.

    `received` is one receiver's copy, `recipients` are its envelope recipients.
    """
    headers = parse_headers(received)
    message = message_from_bytes(received, policy=default)
    assert isinstance(message, EmailMessage)
    found = []
    if str(headers["Message-ID"]).strip() != sample.message_id:
        found.append(f"The Message-ID became {headers['Message-ID']}.")
    if str(headers["Subject"]) != sample.subject:
        found.append(f"The subject became {str(headers['Subject'])!r}.")
    named = {address.addr_spec for address in headers["To"].addresses}
    if named != set(sample.recipients) - set(sample.blind):
        found.append(f"To: names {', '.join(sorted(named))}.")
    found += [
        f"The blind copy to {address} shows."
        for address in sample.blind
        if _shows(received, address, in_trace=address not in recipients)
    ]
    text, attachment = _contents(message)
    if text != sample.text:
        found.append(f"The text became {text[:200]!r}.")
    if attachment != sample.attachment:
        found.append(f"The attachment has {len(attachment or b'')} bytes, other than those sent.")
    return found


@dataclass(frozen=True)
class _Writer:
    """Writes simple messages byte by byte: no library may tidy them up."""

    sender: str
    recipients: Sequence[str]
    token: str

    def message_id(self, name: str) -> str:
        return f"<{name}.{self.token}@{self.sender.partition('@')[2]}>"

    def subject(self, name: str) -> str:
        return f"{name} {self.token}"

    def write(
        self,
        name: str,
        *,
        text: str,
        subject: str = "",
        subject_field: bytes = b"",
        fields: Sequence[str] = (),
        recipients: Sequence[str] = (),
        blind: Sequence[str] = (),
    ) -> Sample:
        """A UTF-8 text message; `subject_field` is the subject as the header has it."""
        subject = subject or self.subject(name)
        to = recipients or self.recipients
        lines = [
            f"From: Postern <{self.sender}>",
            f"To: {', '.join(to)}",
            *(f"Bcc: {address}" for address in blind),
            f"Message-ID: {self.message_id(name)}",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: 8bit",
            *fields,
        ]
        head = "\n".join(lines).encode() + b"\nSubject: " + (subject_field or subject.encode())
        return Sample(
            name=name,
            message_id=self.message_id(name),
            subject=subject,
            content=head + b"\n\n" + text.encode(),
            recipients=(*to, *blind),
            blind=tuple(blind),
            text=text,
        )


def _thirty_recipients(writer: _Writer, domains: Sequence[str]) -> Sample:
    """All in one line, within RFC 5322's limit; mail servers like to fold it."""
    return writer.write(
        "thirty-recipients",
        recipients=[
            f"recipient-{number:02}@{domains[number % len(domains)]}" for number in range(30)
        ],
        text="For everyone.\n",
    )


def _long_header_lines(writer: _Writer) -> Sample:
    return writer.write(
        "long-header-lines",
        fields=[
            "X-One-Word: " + "x" * 888,
            "X-Many-Words: " + "word " * 177 + "w",
            "References: " + " ".join(f"<reference-{n:02}@example.com>" for n in range(27)),
        ],
        text="The header is the message.\n",
    )


def _encoded_subject(writer: _Writer) -> Sample:
    return writer.write(
        "encoded-subject",
        subject=f"Ünïcödé 제목 {writer.token}",
        # "Ünïcödé 제목 " in two encoded words (RFC 2047), as mail programs write it.
        subject_field=b"=?utf-8?q?=C3=9Cn=C3=AFc=C3=B6d=C3=A9_?= =?utf-8?b?7KCc66qp?= "
        + writer.token.encode(),
        text="The subject is not ASCII.\n",
    )


def _raw_subject(writer: _Writer) -> Sample:
    """UTF-8 as it is, which needs SMTPUTF8 by the book and is common without it."""
    return writer.write(
        "raw-subject", subject=f"Ünïcödé 제목 {writer.token}", text="The subject is not encoded.\n"
    )


def _blind_copy(writer: _Writer, domain: str) -> Sample:
    return writer.write("blind-copy", blind=[f"hidden@{domain}"], text="Someone reads along.\n")


def _large_attachment(writer: _Writer) -> Sample:
    name, text = "large-attachment", "See the attachment.\n"
    attachment = random.Random(0).randbytes(_ATTACHMENT_BYTES)  # noqa: S311 - the same bytes each time
    message = EmailMessage(policy=default)
    message["From"] = writer.sender
    message["To"] = ", ".join(writer.recipients)
    message["Message-ID"] = writer.message_id(name)
    message["Subject"] = writer.subject(name)
    message.set_content(text)
    message.add_attachment(
        attachment, maintype="application", subtype="octet-stream", filename="random.bin"
    )
    return Sample(
        name=name,
        message_id=writer.message_id(name),
        subject=writer.subject(name),
        content=message.as_bytes(),
        recipients=tuple(writer.recipients),
        text=text,
        attachment=attachment,
    )


def _contents(message: EmailMessage) -> tuple[str, bytes | None]:
    body = message.get_body(preferencelist=("plain",))
    text = "" if body is None else str(body.get_content())
    attachments: list[MIMEPart] = list(message.iter_attachments())
    attachment = attachments[0].get_content() if attachments else None
    return text.replace("\r\n", "\n"), attachment


def _shows(received: bytes, address: str, *, in_trace: bool) -> bool:
    """Whether the header tells of `address`; `in_trace`: also in the fields of its own journey."""
    return any(
        address in str(value)
        for field, value in parse_headers(received).items()
        if in_trace or field.lower() not in _TRACE_FIELDS
    )
