"""The lab's Internet: what a mail host sends through and to, in the `internet` namespace."""

from lab.internet.internet import RECEIVERS, Internet
from lab.internet.service import InternetError

__all__ = ["RECEIVERS", "Internet", "InternetError"]
