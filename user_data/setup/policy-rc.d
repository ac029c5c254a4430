#!/bin/sh
# Debian's packages start their services as soon as they are unpacked, with Debian's configuration:
# sendmail would accept mail into a queue on the root disk, unsigned. While this file exists they
# start nothing (invoke-rc.d(8)); postern-setup removes it when everything is in place.
exit 101
