import pytest

from config.monitor_options import bearer
from config.settings import SettingsError, read

TOKEN = "0123456789abcdef"


def test_on_loopback_no_token_is_needed() -> None:
    assert bearer(read({}), "127.0.0.1", "GAIA_WORKER__HOST") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gaia.example"])  # noqa: S104 - refused
def test_elsewhere_it_is(host: str) -> None:
    with pytest.raises(SettingsError, match=r"GAIA_WORKER__HOST.*GAIA_MONITOR__TOKEN"):
        bearer(read({}), host, "GAIA_WORKER__HOST")
    assert bearer(read({"GAIA_MONITOR__TOKEN": TOKEN}), host, "GAIA_WORKER__HOST") == TOKEN


@pytest.mark.parametrize("given", ["short", "with a blank in the middle", "ünicode-0123456789", "a\nb0123456789abcdef"])
def test_a_token_that_is_none_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(SettingsError, match="GAIA_MONITOR__TOKEN must be") as caught:
        read({"GAIA_MONITOR__TOKEN": given})
    assert given not in str(caught.value)
