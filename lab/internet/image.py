"""The directory tree that the lab's name server and its second receiver run from."""

from collections.abc import Callable
from pathlib import Path

from lab.images import root_filesystem

PACKAGES = (
    "libfaketime",  # for the mail host, see lab.instance.clock; on EC2 it would not have it
    "nsd",
    "opendkim",
    "opendmarc",
    "postfix",
    "postfix-policyd-spf-python",
)


def internet_image(*, cache: Path, progress: Callable[[str], None]) -> Path:
    """A Debian tree with every server program of the lab's Internet, built on the first call.

    Nothing boots in it: its programs run with it as their root directory, so none of them is
    installed on this machine. Needs root and, when it is built, the network.

    Raises:
        lab.images.ImageError: it could not be built.
    """
    return root_filesystem(cache=cache, name="internet", packages=PACKAGES, progress=progress)
