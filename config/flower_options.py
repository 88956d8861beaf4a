"""Settings to Flower options, a pure function: loopback, read-only and bounded unless settings say otherwise."""

import secrets
from ipaddress import ip_address
from typing import Any, Final

from config.settings import Flower, Settings, SettingsError

MAX_TASKS: Final = 10_000
"""Tasks kept in memory; Flower's own default is ten times that."""

MAX_WORKERS: Final = 1000


def flower_options(settings: Settings) -> dict[str, Any]:
    """Give the options, under the names of `flower.options`.

    Raises:
        SettingsError: if the page would be open to others without a password, or the password is none.
    """
    page = settings.flower
    return {
        "address": page.host,
        "port": page.port,
        "basic_auth": _basic_auth(page),
        # A regular expression of e-mail addresses for OAuth, which Gaia does not offer.
        "auth": "",
        "read_only": page.read_only,
        "persistent": False,
        "max_tasks": MAX_TASKS,
        "max_workers": MAX_WORKERS,
        # A cookie holds nothing that has to outlive the process.
        "cookie_secret": secrets.token_urlsafe(64),
        # Workers send events of their own accord; a broadcast every five seconds would tell them again.
        "enable_events": False,
        "debug": False,
        "xheaders": False,
    }


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _basic_auth(page: Flower) -> list[str]:
    if page.basic_auth is None:
        if not is_loopback(page.host):
            raise SettingsError(
                f"GAIA_FLOWER__HOST is {page.host or 'empty'!r}, where others reach the page: "
                "set GAIA_FLOWER__BASIC_AUTH to user:password, or the host to 127.0.0.1"
            )
        return []
    user, _, password = (given := page.basic_auth.get_secret_value()).partition(":")
    # Flower compares ASCII text only, in constant time.
    if not user or not password or not given.isascii():
        raise SettingsError("GAIA_FLOWER__BASIC_AUTH must be user:password in ASCII")
    return [given]
