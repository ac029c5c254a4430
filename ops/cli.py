"""The `postern` command."""

import typer

import lab.cli
import ops.addresses
import ops.dkim
import ops.doctor.command
import ops.port25_request
import ops.queue
import ops.send_test
import ops.suppressions
import ops.zones
import review.command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(lab.cli.app, name="lab")
app.command()(ops.doctor.command.doctor)
app.add_typer(ops.dkim.app, name="dkim")
app.add_typer(ops.addresses.app, name="addresses")
app.command("port25-request")(ops.port25_request.request)
app.add_typer(ops.queue.app, name="queue")
app.add_typer(ops.suppressions.app, name="suppressions")
app.add_typer(ops.zones.app, name="zones")
app.command("send-test")(ops.send_test.send_test)
app.command()(review.command.review)


@app.callback()
def postern() -> None:
    """An outbound-only SMTP server on AWS whose address DNS vouches for."""


def main() -> None:
    app()
