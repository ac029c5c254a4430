"""An operator's laptop on the lab's Internet: this machine's files and programs, the lab's network.

A command line that moves into the `internet` namespace and into a mount namespace of its own, where
the machine's resolver settings are covered by the lab's, then sets the environment and becomes the
operator's command. AWS's APIs are there under their own names, with certificates of the lab's
authority. Nothing of the machine is changed, and nothing is left behind when the command ends.
"""

from collections.abc import Sequence
from pathlib import Path

from lab.internet import addresses
from lab.network import INTERNET
from lab.network.namespace import DIRECTORY as NAMESPACES

# $1 is the laptop's folder. Nobody else sees the mounts: the namespace is private. Where the
# machine's names come from a daemon (nsswitch.conf's `resolve`, nscd), its socket would still lead
# to the machine's own DNS.
_BECOME = """\
mount --bind "$1/resolv.conf" /etc/resolv.conf
if [ -e /etc/nsswitch.conf ]; then mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf; fi
if [ -d /run/nscd ]; then mount -t tmpfs -o ro tmpfs /run/nscd; fi
unset $(env | sed -n 's/^\\(AWS_[A-Z0-9_]*\\|[A-Za-z]*_[Pp][Rr][Oo][Xx][Yy]\\)=.*/\\1/p') _
unset POSTERN_SUFFIX
set -a; . "$1/environment"; set +a
shift
exec "$@"
"""

_NAME_SERVICE = """\
passwd: files
group: files
hosts: files dns
"""

# Any key will do for the emulated account's root. No file of the machine's user may interfere.
_ENVIRONMENT = """\
AWS_ACCESS_KEY_ID=test
AWS_SECRET_ACCESS_KEY=test
AWS_DEFAULT_REGION={region}
AWS_REGION={region}
AWS_CONFIG_FILE=/dev/null
AWS_SHARED_CREDENTIALS_FILE=/dev/null
AWS_EC2_METADATA_DISABLED=true
AWS_CA_BUNDLE={ca_certificate}
SSL_CERT_FILE={ca_certificate}
CURL_CA_BUNDLE={ca_certificate}
REQUESTS_CA_BUNDLE={ca_certificate}
NODE_EXTRA_CA_CERTS={ca_certificate}
"""


def write_laptop(folder: Path, *, region: str, ca_certificate: Path) -> None:
    """Write the files that `operator_command` covers the machine's with."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "resolv.conf").write_text(f"nameserver {addresses.NAME_SERVER}\n")
    (folder / "nsswitch.conf").write_text(_NAME_SERVICE)
    (folder / "environment").write_text(
        _ENVIRONMENT.format(region=region, ca_certificate=ca_certificate)
    )


def operator_command(argv: Sequence[str], *, folder: Path, supervisor: int) -> list[str]:
    """The command line that runs `argv` on the laptop; `folder` is `write_laptop`'s."""
    # The namespace has its name in the supervisor's mount namespace only.
    network = f"/proc/{supervisor}/root{NAMESPACES / INTERNET}"
    return [
        *("nsenter", f"--net={network}", "unshare", "--mount", "--propagation=private"),
        *("sh", "-ec", _BECOME, "laptop", str(folder), *argv),
    ]
