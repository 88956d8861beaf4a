"""`gaia flower`: the web page that shows workers and tasks, in the foreground.

Flower's own command takes its options from a command line and the environment; here they come from the settings alone,
so neither the address of the broker nor a password can be read from the process list.
"""

import asyncio
import hmac
import logging
import os
import signal
import sys
from base64 import b64decode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from config.flower_options import flower_options
from config.settings import Settings, load
from gaia.redaction import scrub
from tasks.cli import broker, notify
from tasks.runtime.pages import local_names

if TYPE_CHECKING:
    from celery import Celery

HEALTHCHECK: Final = "/healthcheck"
"""Says `OK` and nothing else; container engines ask it, and have no password."""

_TEXTS: Final = ("args", "kwargs", "result", "exception", "traceback")


@click.command()
def flower() -> None:
    """Show workers and tasks on a web page until SIGTERM."""
    settings = load()
    options = flower_options(settings)
    # An open door that Flower reads from the environment at each request, whatever its options say.
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    broker.require_if_hinted(settings)
    logging.basicConfig(level=settings.worker.log_level, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)

    from tasks.app import app  # it reads the settings: not before they are known to be sound

    asyncio.set_event_loop(asyncio.new_event_loop())
    page = build(app, options)
    port = _listen(page, settings)
    click.echo(f"Flower shows the workers at {address(settings.flower.host, port)}")
    notify.ready()
    _serve(page)


def address(host: str, port: int) -> str:
    """Give the URL of the page."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def build(app: "Celery", given: dict[str, Any]) -> Any:
    """Make Flower's web application; nothing listens and nothing is dialled yet."""
    from flower.app import Flower  # Flower, Tornado and humanize: only this command pays for them
    from flower.options import options
    from flower.urls import settings as page_settings
    from tornado.web import ErrorHandler

    class Refused(ErrorHandler):
        def set_default_headers(self) -> None:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')

    class Page(Flower):  # type: ignore[misc]  # Flower has no types
        """Flower, asking for the password at the door, and without one for a name of this machine.

        Flower's own views ask for the password one by one, and its metrics do not. Without a password a web site could
        have its own name resolve to this machine and read the page through a visitor's browser (DNS rebinding).
        """

        def find_handler(self, request: Any, **rest: Any) -> Any:
            passwords = self.options.basic_auth
            if passwords and request.path != HEALTHCHECK and not knows(request.headers, passwords):
                return self.get_handler_delegate(request, Refused, {"status_code": 401})
            if not passwords and request.host_name not in local_names(self.options.address):
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
            return super().find_handler(request, **rest)

    for name, value in (given | {"format_task": scrubbed}).items():
        setattr(options, name, value)
    quiet = logging.getLogger("tornado.access")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    return Page(capp=app, options=options, **(page_settings | {"cookie_secret": options.cookie_secret}))


def knows(headers: Any, passwords: Sequence[str]) -> bool:
    """Say whether a request has one of the passwords, `user:password`; compared in constant time."""
    kind, _, text = headers.get("Authorization", "").partition(" ")
    try:
        given = b64decode(text.strip())
    except ValueError:
        return False
    right = [hmac.compare_digest(given, each.encode()) for each in passwords]
    return kind.lower() == "basic" and any(right)


def scrubbed(task: Any) -> Any:
    """Strike what looks like a secret from the texts of a task, the last time before they are shown."""
    for name in _TEXTS:
        text = getattr(task, name, None)
        if isinstance(text, str):
            setattr(task, name, scrub(text))
    return task


def _listen(page: Any, settings: Settings) -> int:
    try:
        return int(page.start_http_server())
    except OSError as failure:
        where = f"port {settings.flower.port} on {settings.flower.host}"
        raise click.ClickException(
            f"Flower cannot have {where} ({failure.strerror}): choose another with GAIA_FLOWER__PORT"
        ) from None


def _serve(page: Any) -> None:
    """Run the loop until a signal, then end the process.

    Flower's threads may wait for replies of workers, seconds long; there is nothing in them worth waiting for.
    """
    loop = page.io_loop.asyncio_loop
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, page.stop)
    page.start()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
