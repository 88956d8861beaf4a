"""Who may ask a worker or the monitor for its pages: a pure function of the settings."""

from config.flower_options import is_loopback
from config.settings import Settings, SettingsError


def bearer(settings: Settings, host: str, variable: str) -> str | None:
    """Give the token that guards what listens on `host`, which `variable` names; None if there is none.

    Raises:
        SettingsError: if others could reach it without one.
    """
    if settings.monitor.token is not None:
        return settings.monitor.token.get_secret_value()
    if not is_loopback(host):
        raise SettingsError(
            f"{variable} is {host!r}, where others reach it: set GAIA_MONITOR__TOKEN, or the host to 127.0.0.1"
        )
    return None
