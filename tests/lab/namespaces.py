"""Named network namespaces for tests that build a part of the lab without its supervisor."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lab.network.namespace import DIRECTORY

_CLONE_NEWNS = 0x00020000


@contextmanager
def hidden_from_the_machine() -> Iterator[None]:
    """Keep this process's mounts, /run/netns among them, in a mount namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(DIRECTORY)], check=True)
    yield
    subprocess.run(["umount", str(DIRECTORY)], check=True)
