"""What no mail server exceeds on this machine: signatures, and writes to the queue volume."""

from __future__ import annotations

import textwrap

from bench.host import MailHost

_FSYNC = textwrap.dedent(
    """
    import os, sys, threading, time
    folder, threads, seconds = sys.argv[1], int(sys.argv[2]), 3.0
    content, done, end = b"x" * 10240, [0] * threads, time.monotonic() + seconds
    def write(number):
        name = f"{folder}/bench-fsync-{number}"
        while time.monotonic() < end:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, content)
            os.fsync(file)
            os.close(file)
            os.unlink(name)
            done[number] += 1
    writers = [threading.Thread(target=write, args=[n]) for n in range(threads)]
    for writer in writers: writer.start()
    for writer in writers: writer.join()
    print(sum(done) / seconds)
    """
)


def measure(host: MailHost) -> dict[str, float]:
    """Events per second on `host`, by what they are.

    `signatures` are RSA-2048 signatures on one processor and `signatures_all` on all of them, by
    `openssl speed`; `fsync` are files of 10 KB written, flushed to the disk and removed on the
    queue volume, one after another, and `fsync_20` by twenty at a time.
    """
    processors = host.run("nproc")
    folder = host.contender.queue
    return {
        "signatures": _signatures(host.run("openssl speed -seconds 1 rsa2048 2>/dev/null")),
        "signatures_all": _signatures(
            host.run(f"openssl speed -seconds 1 -multi {processors} rsa2048 2>/dev/null")
        ),
        **{
            name: float(host.run(f"python3 -c '{_FSYNC}' {folder} {threads}"))
            for name, threads in (("fsync", 1), ("fsync_20", 20))
        },
    }


def _signatures(output: str) -> float:
    """The signatures per second in what `openssl speed rsa2048` prints.

    Raises:
        ValueError: there are none.
    """
    for line in output.splitlines():
        fields = line.split()
        if fields[:3] == ["rsa", "2048", "bits"]:
            # Times first, with their unit; then what fits into a second, signatures before others.
            return next(float(field) for field in fields[3:] if not field.endswith("s"))
    raise ValueError(f"openssl speed said nothing of rsa 2048: {output!r}")
