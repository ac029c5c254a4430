"""What a receiver received, as files: `NAME.eml` with the message, `NAME.json` with the verdict."""

import threading
from dataclasses import replace
from email.message import EmailMessage
from email.parser import HeaderParser
from email.policy import default
from pathlib import Path

from authres import AuthenticationResultsHeader  # type: ignore[import-untyped]

from lab.internet.verdict import Verdict


class Inbox:
    """One receiver's directory. One process writes, any number may read at the same time."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made when it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._known: dict[Path, Verdict] = {}
        self._adding = threading.Lock()
        self._number = 0

    def empty(self) -> None:
        """Remove what an earlier run received; before the first message of this one."""
        for file in self._directory.iterdir():
            if file.suffix in (".eml", ".json"):
                file.unlink()
        self._known.clear()
        self._number = 0

    def add(self, verdict: Verdict, message: bytes | None) -> Verdict:
        """File a message, None if it was refused; returns the verdict with its path."""
        with self._adding:
            self._number += 1
            name = f"{self._number:06}"  # files are read in the order of their names
        if message is not None:
            verdict = replace(verdict, path=self._directory / f"{name}.eml")
            (self._directory / f"{name}.eml").write_bytes(message)
        # A reader looks for .json files, so this one comes last and at once.
        unfinished = self._directory / f"{name}.new"
        unfinished.write_text(verdict.to_json())
        unfinished.replace(self._directory / f"{name}.json")
        return verdict

    def verdicts(self) -> list[Verdict]:
        """Every verdict so far, oldest first."""
        files = sorted(self._directory.glob("*.json"))
        for file in files:
            if file not in self._known:
                self._known[file] = Verdict.from_json(file.read_text())
        return [self._known[file] for file in files]


def parse_headers(message: bytes) -> EmailMessage:
    """The message's header, decoded; raw 8-bit text in it is taken as UTF-8 (RFC 6532)."""
    header = message.partition(b"\r\n\r\n" if b"\r\n" in message else b"\n\n")[0]
    return HeaderParser(policy=default).parsestr(header.decode("utf-8", "replace"))


def from_domain(headers: EmailMessage) -> str:
    """The domain of the first address in From:, "" without one."""
    field = headers["From"]
    return field.addresses[0].domain if field is not None and field.addresses else ""


def authentication_results(headers: EmailMessage, authserv_id: str) -> dict[str, dict[str, str]]:
    """What the filters of `authserv_id` noted in Authentication-Results (RFC 8601).

    For each method, such as "spf", its result under "result", and its properties, such as
    "header.d". Where a method has several results, a pass wins, then the topmost.
    """
    found: dict[str, dict[str, str]] = {}
    for value in headers.get_all("Authentication-Results", []):
        parsed = AuthenticationResultsHeader.parse_value(str(value))
        if parsed.authserv_id != authserv_id:
            continue  # a sender's own claim
        for result in parsed.results:
            details = {f"{p.type}.{p.name}": p.value for p in result.properties}
            details["result"] = result.result
            if result.method not in found or (
                result.result == "pass" and found[result.method]["result"] != "pass"
            ):
                found[result.method] = details
    return found
