"""Run the emulated AWS: ``python -m lab.cloud.emulator``, settings from ministack's environment.

Ends when standard input does, so that it never outlives whoever started it.
"""

import os
import sys
import threading
from importlib import import_module

from lab.cloud.emulator import (
    alarms,
    authorization,
    auto_scaling,
    certificates,
    elastic_ips,
    exports,
    flow_logs,
    hosted_zones,
    images,
    instances,
    load_balancers,
    loopback,
    nat_gateways,
    resource_signals,
    resource_values,
    reverse_dns,
    run_command,
    security_group_rules,
    stack_polling,
    volumes,
)

_EXTENSIONS = (
    loopback,
    alarms,
    authorization,
    elastic_ips,
    nat_gateways,
    volumes,
    flow_logs,
    reverse_dns,
    images,
    instances,
    run_command,
    resource_signals,
    auto_scaling,
    security_group_rules,
    certificates,
    load_balancers,
    hosted_zones,
    resource_values,
    exports,
    stack_polling,
)


def main() -> None:
    for extension in _EXTENSIONS:
        extension.install()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    import_module("ministack.app").main()


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
