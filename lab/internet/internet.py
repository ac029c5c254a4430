"""Everything on the lab's Internet: DNS, two receivers, the AWS APIs' TLS end, Debian's mirror."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from lab.images import mount_writable
from lab.internet import addresses
from lab.internet.aws_front import write_faults
from lab.internet.certificates import CertificateAuthority
from lab.internet.image import internet_image
from lab.internet.name_server import NameServer, read_cloud
from lab.internet.receivers.first import FirstReceiver
from lab.internet.receivers.second import SecondReceiver
from lab.internet.receivers.sinkhole import Sinkhole
from lab.internet.service import InternetError, Service, stop_together
from lab.internet.verdict import Verdict
from lab.internet.zones import CloudRecords
from lab.network import INTERNET
from lab.network.namespace import command_in

RECEIVERS = (addresses.FIRST_RECEIVER_NAME, addresses.SECOND_RECEIVER_NAME)

_FOLLOW_INTERVAL = 0.5
_WAIT_INTERVAL = 0.1
# What a host had to defer it tries again after five minutes (sendmail.mc, confMIN_QUEUE_AGE).
DELIVERY_SECONDS = 420.0

_log = logging.getLogger(__name__)


class Internet:
    """Starts and stops the servers in the `internet` namespace, which has to exist.

    Mounts happen in the caller's mount namespace, and the servers are its child processes.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        client: Callable[[str], Any],
        region: str,
        hosted_zone_id: str,
        hosted_zone_name: str,
        state: Path,
        cache: Path,
        received: Path,
        mirror: Path,
        mirror_hosts: Collection[str],
        progress: Callable[[str], None],
    ) -> None:
        """Describe the Internet; nothing runs yet.

        `endpoint` is the emulated AWS, such as "http://127.0.0.1:4566", and `client` makes its
        boto3 clients by service name. `state`, `cache` and `received` are directories for this
        run's files, for images, and for received messages (one directory for each receiver).
        `mirror` is served under each of `mirror_hosts`. `progress` gets a line for each part that
        is ready.
        """
        self._endpoint = endpoint
        self._client = client
        self._region = region
        self._hosted_zone_id = hosted_zone_id
        self._hosted_zone_name = hosted_zone_name
        self._state = state
        self._cache = cache
        self._received = received.absolute()
        self._mirror = mirror
        self._mirror_hosts = mirror_hosts
        self._progress = progress
        self._root = state / "root"
        self._aws_faults = state / "aws-faults.json"
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="dns", daemon=True)

    @property
    def ca_certificate(self) -> Path:
        """The lab's certificate authority, to be trusted by hosts; there from `start` on."""
        return self._state / "tls" / "ca.crt"

    def start(self) -> None:
        """Start every server; return when all are ready, a second or two with a cached image.

        Raises:
            InternetError: one of them did not get ready.
            lab.images.ImageError: the image could not be built.
        """
        image = internet_image(cache=self._cache, progress=self._progress)
        mount_writable(image, self._state)
        self._authority = CertificateAuthority(self._state / "tls")
        self._describe_servers(self._authority)
        parts: dict[str, Callable[[], None]] = {
            "DNS": self._name_server.start,
            self.first.name: self.first.start,
            self.second.name: self.second.start,
            self.sinkhole.name: self.sinkhole.start,
            "AWS APIs": lambda: _start(self._aws_front),
            "Debian mirror": lambda: _start(self._mirror_server),
        }
        try:
            with ThreadPoolExecutor(max_workers=len(parts)) as executor:
                started = {name: executor.submit(start) for name, start in parts.items()}
                for name, part in started.items():
                    part.result()
                    self._progress(f"{name} ready")
        except BaseException:  # Ctrl-C too: half an Internet is of no use to anyone
            self.stop()
            raise
        self._follower.start()

    def stop(self) -> None:
        """Stop every server, and give the tree up; the received messages stay."""
        self._stopping.set()
        if self._follower.is_alive():
            self._follower.join()
        stop_together(
            (
                self.second,
                self.first,
                self.sinkhole,
                self._aws_front,
                self._mirror_server,
                self._name_server,
            )
        )
        subprocess.run(["umount", "--lazy", str(self._root)], check=True)

    def publish(self, faults: Iterable[str] = ()) -> None:
        """Serve the deployed DNS records with these faults until the next call.

        `faults` are names from `zones.FAULTS`. Returns when the name server answers so.
        """
        self._name_server.publish(faults)

    def aws_apis(self, faults: Mapping[str, str]) -> None:
        """Let the APIs of some services fail until the next call: service to a word of `FAULTS`.

        `lab.internet.aws_front` says what each word means.
        """
        write_faults(self._aws_faults, faults)

    def issue_certificate(self, name: str) -> dict[str, str]:
        """A new certificate for the DNS `name`, its chain and its key, each as PEM text."""
        issued = self._authority.issue(name)
        return {
            "certificate": issued.certificate.read_text(),
            "chain": self.ca_certificate.read_text(),
            "key": issued.key.read_text(),
        }

    def verdicts(self) -> list[Verdict]:
        """What both receivers say about every message so far."""
        return [*self.first.messages(), *self.second.messages()]

    def wait_for(
        self,
        *,
        message_id: str = "",
        subject: str = "",
        receivers: Collection[str] = RECEIVERS,
        timeout: float = DELIVERY_SECONDS,
    ) -> list[Verdict]:
        """The verdicts on one message, one from each of `receivers`, in their order.

        The message is the latest with this `message_id`, or with this `subject`; of a refused one
        the second receiver knows the former only.

        Raises:
            InternetError: not everyone had it after `timeout` seconds; the text says who not.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = {
                verdict.receiver: verdict
                for verdict in self.verdicts()
                if (message_id and verdict.message_id == message_id)
                or (subject and verdict.subject == subject)
            }
            missing = [receiver for receiver in receivers if receiver not in found]
            if not missing:
                return [found[receiver] for receiver in receivers]
            if time.monotonic() > deadline:
                raise InternetError(
                    f"{' and '.join(missing)} did not get {message_id or subject!r} within "
                    f"{timeout:.0f} s. It may still wait in the sender's queue."
                )
            time.sleep(_WAIT_INTERVAL)

    def _describe_servers(self, authority: CertificateAuthority) -> None:
        logs = self._state / "log"
        self._name_server = NameServer(
            root=self._root,
            namespace=INTERNET,
            read=self._cloud_reader(),
            hosted_zone_name=self._hosted_zone_name,
            region=self._region,
            mirror_hosts=self._mirror_hosts,
            log=logs / "nsd.log",
        )
        self.first = FirstReceiver(
            namespace=INTERNET,
            certificate=authority.issue(addresses.FIRST_RECEIVER_NAME),
            received=self._received / addresses.FIRST_RECEIVER_NAME,
            log=logs / "first-receiver.log",
        )
        self.second = SecondReceiver(
            root=self._root,
            namespace=INTERNET,
            certificate=authority.issue(addresses.SECOND_RECEIVER_NAME),
            received=self._received / addresses.SECOND_RECEIVER_NAME,
            logs=logs,
        )
        self.sinkhole = Sinkhole(
            namespace=INTERNET,
            certificate=authority.issue(addresses.SINKHOLE_NAME),
            expired_certificate=authority.issue(addresses.SINKHOLE_NAME, expired=True),
            received=self._received / addresses.SINKHOLE_NAME,
            state=self._state,
            log=logs / "sinkhole.log",
        )
        # A certificate's wildcard stands for one label, so S3's bucket names need their own.
        aws = authority.issue(
            *(f"*.{self._region}.amazonaws.com", f"*.s3.{self._region}.amazonaws.com"),
            *(f"{service}.amazonaws.com" for service in addresses.GLOBAL_APIS),
            "*.s3.amazonaws.com",
        )
        self._aws_front = Service(
            name="the AWS APIs' TLS end",
            command=[
                sys.executable,
                *("-m", "lab.internet.aws_front", INTERNET, addresses.AWS_FRONT, "443"),
                *(str(urlsplit(self._endpoint).port), str(aws.certificate), str(aws.key)),
                str(self._aws_faults),
            ],
            namespace=INTERNET,
            log=logs / "aws-front.log",
            listens=[(addresses.AWS_FRONT, 443)],
        )
        self._mirror_server = Service(
            name="the Debian mirror",
            command=command_in(
                INTERNET,
                [
                    # With HTTP/1.1 apt fetches its fifty files over one connection.
                    *(sys.executable, "-m", "http.server", "--protocol", "HTTP/1.1"),
                    *("--directory", str(self._mirror)),
                    *("--bind", addresses.DEBIAN_MIRROR, "80"),
                ],
            ),
            namespace=INTERNET,
            log=logs / "mirror.log",
            listens=[(addresses.DEBIAN_MIRROR, 80)],
        )

    def _cloud_reader(self) -> Callable[[], CloudRecords]:
        route53, ec2, elb = (self._client(service) for service in ("route53", "ec2", "elbv2"))
        return lambda: read_cloud(
            route53=route53, ec2=ec2, elb=elb, hosted_zone_id=self._hosted_zone_id
        )

    def _follow(self) -> None:
        """Publish every change of the cloud's records until the Internet stops."""
        while not self._stopping.wait(_FOLLOW_INTERVAL):
            try:
                self._name_server.refresh()
            except (BotoCoreError, ClientError, InternetError, ValueError):
                # Going on is right: the next look may succeed, and whoever needs the record sees
                # that it is missing.
                _log.exception("The cloud's records could not be published")


def _start(server: Service) -> None:
    server.start()
    server.wait_until_ready()
