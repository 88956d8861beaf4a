import pytest

from config.flower_options import flower_options, is_loopback
from config.settings import SettingsError, read


def options(**flower: str) -> dict[str, object]:
    return flower_options(read({f"GAIA_FLOWER__{name.upper()}": value for name, value in flower.items()}))


def test_the_page_is_local_read_only_and_bounded_by_default() -> None:
    found = options()
    assert (found["address"], found["port"], found["read_only"]) == ("127.0.0.1", 5555, True)
    assert (found["persistent"], found["max_tasks"], found["basic_auth"], found["auth"]) == (False, 10_000, [], "")


def test_every_option_is_one_of_flowers() -> None:
    from flower.options import options as known

    assert set(options()) <= set(known.as_dict())


def test_the_cookie_secret_is_random() -> None:
    assert options()["cookie_secret"] != options()["cookie_secret"]
    assert len(str(options()["cookie_secret"])) >= 64


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gaia.example", "127.0.0.1.example"])  # noqa: S104 - refused
def test_a_page_for_others_needs_a_password(host: str) -> None:
    with pytest.raises(SettingsError, match=r"GAIA_FLOWER__HOST.*GAIA_FLOWER__BASIC_AUTH"):
        options(host=host)
    assert options(host=host, basic_auth="me:pass")["basic_auth"] == ["me:pass"]


def test_an_empty_user_and_password_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="GAIA_FLOWER__BASIC_AUTH must be"):
        options(basic_auth="")


@pytest.mark.parametrize("given", ["me", "me:", ":pass", "mé:pass"])
def test_what_is_no_user_and_password_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(SettingsError, match="GAIA_FLOWER__BASIC_AUTH must be user:password") as caught:
        options(basic_auth=given)
    assert given not in str(caught.value).replace("user:password", "")


@pytest.mark.parametrize(("host", "expected"), [("localhost", True), ("127.8.8.8", True), ("::1", True), ("", False)])
def test_loopback_is_told_by_address(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
