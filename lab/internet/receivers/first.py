"""The first receiver, mx.example.net: aiosmtpd, dkimpy, pyspf and authheaders."""

import sys
from pathlib import Path

from lab.internet import addresses
from lab.internet.certificates import Certificate
from lab.internet.receivers.inbox import Inbox
from lab.internet.service import Service
from lab.internet.verdict import Verdict
from lab.network.namespace import command_in


class FirstReceiver:
    """Accepts and records every message for example.net."""

    name = addresses.FIRST_RECEIVER_NAME

    def __init__(
        self, *, namespace: str, certificate: Certificate, received: Path, log: Path
    ) -> None:
        """Describe the receiver; nothing runs yet. `received` is the directory of its messages."""
        self._inbox = Inbox(received)
        self._server = Service(
            name=self.name,
            command=command_in(
                namespace,
                [
                    sys.executable,
                    *("-m", "lab.internet.receivers.first_server"),
                    f"--name={self.name}",
                    f"--domain={self.name.partition('.')[2]}",
                    f"--address={addresses.FIRST_RECEIVER}",
                    f"--resolver={addresses.NAME_SERVER}",
                    f"--directory={received}",
                    f"--certificate={certificate.certificate}",
                    f"--key={certificate.key}",
                ],
            ),
            namespace=namespace,
            log=log,
            listens=[(addresses.FIRST_RECEIVER, 25)],
        )

    def start(self) -> None:
        """Forget earlier messages and listen."""
        self._inbox.empty()
        self._server.start()
        self._server.wait_until_ready()

    def stop(self) -> None:
        """Stop listening; the messages stay."""
        self._server.stop()

    def messages(self) -> list[Verdict]:
        """What was received since the start, oldest first."""
        return self._inbox.verdicts()
