"""A plain web server for the lab's Debian mirror.

python -m lab.internet.mirror ADDRESS PORT DIRECTORY
"""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class _MirrorHandler(SimpleHTTPRequestHandler):
    # apt asks for its fifty files over one connection, ten at a time.
    protocol_version = "HTTP/1.1"
    # A file's last, short packet would otherwise wait for the client's delayed acknowledgement.
    disable_nagle_algorithm = True


def main() -> None:
    """Serve until the process is ended."""
    address, port, directory = sys.argv[1:]
    handler = partial(_MirrorHandler, directory=directory)
    ThreadingHTTPServer((address, int(port)), handler).serve_forever()


if __name__ == "__main__":
    main()
