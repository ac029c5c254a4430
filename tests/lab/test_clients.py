"""Another host of the VPC submits mail by the load balancer, and only as the environment says."""

from __future__ import annotations

import json
import smtplib
import ssl
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import dns.message
import dns.query
import pytest

from lab.internet.addresses import NAME_SERVER
from lab.internet.verdict import faults
from lab.lab import Lab
from lab.network import INTERNET
from lab.network.network import CLIENT_ADDRESSES, client_namespace
from tests.lab.conftest import RECIPIENTS, send_and_judge
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

NAMED, NOT_NAMED = map(str, CLIENT_ADDRESSES)
CONNECTIONS = 3
# The first of the two subnets of the peered VPC, and not the second.
TABLE = f"""
[clients]
cidrs = ["10.20.0.0/24"]
credentials = ["web-shop"]
connections = {CONNECTIONS}
connections_per_minute = 1000

"""


@dataclass(frozen=True, kw_only=True)
class Client:
    """An application on another host: what it knows of the environment, and its own address."""

    lab: Lab
    name: str
    address: str
    user: str
    password: str

    @contextmanager
    def connected(
        self, *, port: int = 587, source: str = NAMED, starttls: bool = True, login: bool = True
    ) -> Iterator[smtplib.SMTP]:
        """As a program that verifies the certificate against its authorities' list."""
        (zone,) = self.lab.environment.availability_zones
        smtp = smtplib.SMTP(timeout=20, source_address=(source, 0))
        with self.lab.inside(client_namespace(zone)):
            smtp.connect(self.address, port)
        with smtp:
            smtp.ehlo("web-1.internal")
            if starttls:
                # smtplib verifies the name that it connected to, and this process has no DNS there.
                vars(smtp)["_host"] = self.name
                authority = self.lab.places.state / "internet" / "tls" / "ca.crt"
                smtp.starttls(context=ssl.create_default_context(cafile=authority))
                smtp.ehlo("web-1.internal")
            if login:
                smtp.login(self.user, self.password)
            yield smtp

    def is_refused(self) -> bool:
        try:
            with self.connected(login=False, starttls=False):
                return False
        except OSError:
            return True

    def send(self, smtp: smtplib.SMTP, *, sender: str, header: str) -> str:
        """Submit a message to both receivers; its Message-ID."""
        message_id = f"<{uuid.uuid4()}@{self.lab.environment.sending_domain}>"
        smtp.sendmail(
            sender,
            RECIPIENTS,
            f"From: {header}\r\nTo: {', '.join(RECIPIENTS)}\r\nSubject: order\r\n"
            f"Message-ID: {message_id}\r\n\r\nThank you.\r\n",
        )
        return message_id


@pytest.fixture(scope="module")
def client(lab: Lab) -> Iterator[Client]:
    """The lab's environment with clients; what was deployed before is put back."""
    folder = lab.variant()
    file = folder / "environments" / lab.environment.file.name
    text = file.read_text()
    assert text.count("\n[tags]\n") == 1
    file.write_text(text.replace("\n[tags]\n", f"{TABLE}[tags]\n"))
    lab.deploy(app=folder)
    client = the_client(lab)
    eventually(lambda: not client.is_refused())
    yield client
    lab.deploy()


def the_client(lab: Lab) -> Client:
    name = output(lab, "SubmissionName")
    secret = lab.cloud.client("secretsmanager").get_secret_value(
        SecretId=output(lab, "SubmissionSecrets").removeprefix("web-shop: ")
    )
    credentials = json.loads(secret["SecretString"])

    def address() -> str:
        query = dns.message.make_query(name, "A")
        with lab.inside(INTERNET):
            answer = dns.query.udp(query, NAME_SERVER, timeout=5)
        return str(answer.answer[0][0]) if answer.answer else ""

    return Client(
        lab=lab,
        name=name,
        address=eventually(address),
        user=credentials["username"],
        password=credentials["password"],
    )


def output(lab: Lab, key: str) -> str:
    stack = f"postern-{lab.environment.name}-MailHosts"
    (described,) = lab.cloud.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}
    return str(outputs[key])


def own(lab: Lab) -> str:
    return f"orders@{lab.environment.sending_domain}"


def test_a_clients_mail_passes_every_check_of_the_receivers(client: Client) -> None:
    with client.connected() as smtp:
        message_id = client.send(smtp, sender=own(client.lab), header=own(client.lab))

    for verdict in client.lab.wait_for(message_id=message_id):
        assert faults(verdict) == {}


def test_nothing_is_offered_or_taken_before_tls(client: Client) -> None:
    with client.connected(starttls=False, login=False) as smtp:
        assert not smtp.has_extn("auth")
        assert smtp.docmd("AUTH", "PLAIN AHdlYi1zaG9wAGE=")[0] == 503
        assert smtp.mail(own(client.lab))[0] == 530


def test_nothing_is_taken_without_the_password(client: Client) -> None:
    with client.connected(login=False) as smtp:
        assert smtp.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        with pytest.raises(smtplib.SMTPAuthenticationError):
            smtp.login(client.user, f"{client.password}x")
        assert smtp.mail(own(client.lab))[0] == 530


def test_a_client_sends_in_the_sending_domains_name_only(client: Client) -> None:
    foreign = "someone@example.net"
    for sender, header in ((foreign, own(client.lab)), (own(client.lab), foreign)):
        with client.connected() as smtp, pytest.raises(smtplib.SMTPResponseException) as refused:
            client.send(smtp, sender=sender, header=header)
        assert refused.value.smtp_code == 550
    with client.connected() as smtp:
        smtp.mail(own(client.lab))
        assert smtp.rcpt("someone@[198.51.100.25]")[0] == 550


def test_who_is_not_named_gets_nowhere_with_a_password_neither(client: Client) -> None:
    with client.connected(source=NOT_NAMED, starttls=False, login=False) as smtp:
        assert not smtp.has_extn("starttls")
        assert smtp.mail(own(client.lab))[0] == 554


def test_a_client_gets_as_many_connections_as_it_may_have(client: Client) -> None:
    with ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(client.connected(login=False, starttls=False))
        with pytest.raises(smtplib.SMTPServerDisconnected), client.connected():
            pass
    eventually(lambda: not client.is_refused())
    assert (
        "421 4.3.2 Too many open connections."
        in client.lab.run("journalctl", "--unit=sendmail-clients", "--output=cat").stdout
    )


def test_port_25_leads_nowhere_where_nobody_asked_for_it(client: Client) -> None:
    with pytest.raises(OSError), client.connected(port=25):  # noqa: PT011 - refused, or no answer
        pass


def test_the_hosts_own_clients_find_what_they_always_found(client: Client) -> None:
    """On loopback neither TLS nor a password, and no daemon of the package's for passwords."""
    script = "import smtplib; s = smtplib.SMTP('127.0.0.1', 587); s.ehlo(); print(s.esmtp_features)"
    offered = client.lab.run("python3", "-c", script).stdout
    assert "size" in offered
    assert "auth" not in offered
    assert "starttls" not in offered
    assert client.lab.run("systemctl", "is-enabled", "saslauthd").stdout.strip() == "masked"
    for verdict in send_and_judge(client.lab).values():
        assert faults(verdict) == {}


def test_no_secret_is_where_another_user_or_a_log_has_it(client: Client) -> None:
    for name in ("key.pem", "sasldb2"):
        file = f"/run/submission/{name}"
        assert client.lab.run("test", "-s", file).returncode == 0
        looked = client.lab.run("runuser", "-u", "nobody", "--", "cat", file)
        assert "Permission denied" in looked.stderr
        assert not looked.stdout
    everything = client.lab.run("journalctl", "--boot", "--no-pager", "--output=cat").stdout
    for text in (everything, client.lab.run("cat", "/var/log/cloud-init-output.log").stdout):
        assert text
        assert client.password not in text
        assert "PRIVATE KEY" not in text


def test_a_host_whose_signer_is_away_gets_no_clients(client: Client) -> None:
    """The load balancer asks each host; with one host there is nobody else to take them."""
    client.lab.run("systemctl", "stop", "opendkim")
    try:
        eventually(client.is_refused)
    finally:
        client.lab.run("systemctl", "start", "opendkim")
    eventually(lambda: not client.is_refused())


def test_a_new_password_counts_once_the_host_has_fetched_it(client: Client) -> None:
    lab = client.lab
    secret = output(lab, "SubmissionSecrets").removeprefix("web-shop: ")
    another = uuid.uuid4().hex
    changed = json.dumps({"username": client.user, "password": another})
    lab.cloud.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=changed)

    fetched = lab.run("systemctl", "start", "submission@credentials")
    assert fetched.returncode == 0, fetched.stderr

    with pytest.raises(smtplib.SMTPAuthenticationError), client.connected():
        pass
    with client.connected(login=False) as smtp:
        smtp.login(client.user, another)
