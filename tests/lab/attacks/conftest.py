"""What every attack begins with."""

import pytest

from lab.lab import Lab
from tests.lab.attacks.host import MailLog


@pytest.fixture
def mail_log(lab: Lab) -> MailLog:
    """The host's mail log from the test's begin on."""
    return MailLog(lab)
