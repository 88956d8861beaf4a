"""The settings of whoever watches: the monitor, and who may ask it and the workers."""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from config.section import Section, Text

SHORTEST_TOKEN: Final = 16

_ADDRESS: Final = re.compile(r"[\w.:/\[\]~%-]+", re.ASCII)


def _token(given: SecretStr) -> SecretStr:
    """Check a bearer token; the complaint shows nothing of it."""
    text = given.get_secret_value()
    if len(text) < SHORTEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"must be at least {SHORTEST_TOKEN} printable ASCII characters without blanks")
    return given


def _address(given: str) -> str:
    """Check the address of a server: no user, which would be a secret, and nothing that a path could be added to."""
    try:
        parts = urlsplit(given)
        is_fit = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        is_fit = False
    if not is_fit or not _ADDRESS.fullmatch(given):
        raise ValueError("must be an address as http://127.0.0.1:9090, without user, query or fragment")
    return given.rstrip("/")


Token = Annotated[SecretStr, AfterValidator(_token)]


class Monitor(Section):
    """The monitor process."""

    host: Text = "127.0.0.1"
    """The address to listen on. Any but a loopback one needs `GAIA_MONITOR__TOKEN`."""
    port: int = Field(default=9808, ge=0, le=65535)
    """The port to listen on; 0 takes any free one."""
    token: Token | None = None
    """What whoever asks the monitor or a worker sends as `Authorization: Bearer`. Probes alone go without."""
    sample_s: float = Field(default=2.0, ge=0.2, le=60)
    """How often Redis is asked for what waits."""
    queues: tuple[Text, ...] = Field(default=(), examples=[["celery"]])
    """Queues of stock Celery workers that are looked at, too."""
    prometheus: Annotated[str, AfterValidator(_address)] = "http://127.0.0.1:9090"
    """The Prometheus whose figures the page `/dashboard` shows."""
