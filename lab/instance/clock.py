"""A wrong clock for the mail services of a host.

A container has its machine's kernel and therefore its clock. So libfaketime, loaded into the MTA,
the submission queue runner, the signer and postern-pace, tells them another time; everything else
on the host keeps the right one. Files that they write seem to them written by their own clock.
"""

from __future__ import annotations

SERVICES = ("postern-pace", "sendmail", "sendmail-client", "opendkim")
"""Those with a clock of their own; their units' names."""

LIBRARY = "usr/lib/*/faketime/libfaketime.so.1"
"""Where Debian's package `libfaketime` has it; a pattern, for the machine's architecture."""

# sendmail clears its environment, and libfaketime reads FAKETIME again and again: the offset has to
# be in a file. Timers stay right, as they do on a machine whose clock is set.
_SET = """
mkdir -p /run/lab
cat >/run/lab/libfaketime.so.1
echo {offset:+d} >/etc/faketimerc
for service in {services}; do
    mkdir -p "/run/systemd/system/$service.service.d"
    cat >"/run/systemd/system/$service.service.d/clock.conf" <<'END'
[Service]
Environment=LD_PRELOAD=/run/lab/libfaketime.so.1 FAKETIME_DONT_FAKE_MONOTONIC=1
END
done
"""

_RESET = """
rm -f /etc/faketimerc
for service in {services}; do rm -f "/run/systemd/system/$service.service.d/clock.conf"; done
"""

# A wrong library is no more than a warning to the dynamic loader, which comes after systemd has
# called the service started.
_RESTART = """
systemctl daemon-reload
systemctl restart {services}
loaded() {{
    local pid
    pid=$(systemctl show --property=MainPID --value "$1")
    grep --quiet /libfaketime "/proc/$pid/maps"
}}
for service in {services}; do
    deadline=$((SECONDS + 30))
    until if (({offset})); then loaded "$service"; else ! loaded "$service"; fi; do
        if ((SECONDS > deadline)); then
            echo "$service runs with the wrong clock" >&2
            exit 1
        fi
        sleep 0.1
    done
done
"""


def clock_script(offset_seconds: int) -> str:
    """The bash script that makes the services' clock wrong by so many seconds, and right with 0.

    It restarts them, and reads the library (`LIBRARY`) from standard input.
    """
    change = _SET if offset_seconds else _RESET
    return "set -euo pipefail\n" + (change + _RESTART).format(
        offset=offset_seconds, services=" ".join(SERVICES)
    )
