"""Settings from the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from config.programs import Profile
from config.settings import Egress, RootQuota, Settings, SettingsError, read, split_cidr, variables

VALUES: dict[str, tuple[str, Any]] = {
    "GAIA_REDIS_URL": ("rediss://:hunter22@h:6380/1", "rediss://:hunter22@h:6380/1"),
    "GAIA_RESULT_URL": ("redis://h/2", "redis://h/2"),
    "GAIA_EGRESS__ALLOW_CIDRS": ('["10.0.0.0/8", "[::1/128]:80"]', ("10.0.0.0/8", "[::1/128]:80")),
    "GAIA_EGRESS__ALLOW_HOSTS": ('["intranet.example"]', ("intranet.example",)),
    "GAIA_API__CA_FILE": (__file__, Path(__file__)),
    "GAIA_API__PROXIES": ('{"corp": "http://192.0.2.8:3128"}', {"corp": SecretStr("http://192.0.2.8:3128")}),
    "GAIA_FILES__ROOTS": ('{"data": "/srv/data"}', {"data": Path("/srv/data")}),
    "GAIA_FILES__LOCAL": ('["scratch"]', ("scratch",)),
    "GAIA_FILES__QUOTAS": ('{"data": {"files": 7}}', {"data": RootQuota(files=7)}),
    "GAIA_PROCESS__EXECUTABLES": ('["/usr/bin/git", "/opt/*"]', ("/usr/bin/git", "/opt/*")),
    "GAIA_PROCESS__ENV_ALLOWED": ("[]", ()),
    "GAIA_PROCESS__PROFILES": ('{"small": {"memory_bytes": 1}}', {"small": Profile(memory_bytes=1)}),
    "GAIA_PROCESS__CEILINGS": ('{"memory_bytes": 7}', {"memory_bytes": 7.0}),
    "GAIA_PROCESS__ENFORCEMENT": ("sampled", "sampled"),
    "GAIA_PROCESS__CGROUP": ("/sys/fs/cgroup/gaia", Path("/sys/fs/cgroup/gaia")),
    "GAIA_BROWSER__CHROMIUM": ("/usr/bin/chromium", "/usr/bin/chromium"),
    "GAIA_BROWSER__FULL_CHROMIUM": ("/usr/bin/chromium", "/usr/bin/chromium"),
    "GAIA_NETWORK__PROBE_PORTS": ('["443", "8000-8999"]', ("443", "8000-8999")),
    "GAIA_NETWORK__NAMESERVERS": ('["192.0.2.1"]', ("192.0.2.1",)),
    "GAIA_WORKER__LOG_LEVEL": ("DEBUG", "DEBUG"),
    "GAIA_FLOWER__BASIC_AUTH": ("me:hunter22", "hidden"),
    "GAIA_MONITOR__TOKEN": ("hunter2222222222", "hidden"),
    "GAIA_MONITOR__QUEUES": ('["celery"]', ("celery",)),
    "GAIA_MONITOR__PROMETHEUS": ("https://prometheus.test/at/", "https://prometheus.test/at"),
    "GAIA_ARTIFACTS__URL": ("file:///srv/artifacts", "file:///srv/artifacts"),
}
"""Values that are not guessed from the default's type."""


def complaint(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read({f"GAIA_{name}": value for name, value in environ.items()})
    assert caught.value.__cause__ is caught.value.__context__ is None
    return str(caught.value)


def value_of(settings: Settings, variable: str) -> Any:
    found: Any = settings
    for part in variable.removeprefix("GAIA_").lower().split("__"):
        found = getattr(found, part)
    return found


def another(value: Any) -> tuple[str, Any]:
    """Give a text for a value that is not the default, and the value."""
    if isinstance(value, bool):
        return ("false", False) if value else ("true", True)
    if isinstance(value, int | float):
        return str(value + 1 if isinstance(value, int) else value + 0.5), value + 1 if isinstance(
            value, int
        ) else value + 0.5
    return ("77", 77) if value is None else (f"{value}x", f"{value}x")


# --- reading


@pytest.mark.parametrize("variable", sorted(variables()))
def test_every_variable_is_read(variable: str) -> None:
    default = value_of(Settings(), variable)
    text, expected = VALUES.get(variable) or another(default)
    found = value_of(read({variable: text}), variable)
    assert found != default
    if expected == "hidden":
        assert found.get_secret_value() == text
    else:
        assert found == expected


@pytest.mark.parametrize("variable", sorted(variables()))
def test_every_variable_is_described_in_a_sentence_or_two(variable: str) -> None:
    assert variables()[variable].endswith((".", ")"))


def test_the_fixed_names_exist() -> None:
    assert set(variables()) >= {
        "GAIA_REDIS_URL", "GAIA_RESULT_URL", "GAIA_EGRESS__ALLOW_CIDRS", "GAIA_EGRESS__ALLOW_HOSTS",
        "GAIA_FILES__ROOTS", "GAIA_PROCESS__EXECUTABLES", "GAIA_BROWSER__CHROMIUM", "GAIA_BROWSER__NO_SANDBOX",
        "GAIA_WORKER__PORT", "GAIA_ARTIFACTS__URL", "GAIA_MONITOR__PORT",
    }  # fmt: skip


def test_names_are_read_in_either_case() -> None:
    assert read({"gaia_worker__grace_s": "7"}).worker.grace_s == 7


def test_a_section_may_be_given_as_a_whole_and_a_field_beside_it_wins() -> None:
    environ = {"GAIA_EGRESS": '{"allow_hosts": ["a"]}', "GAIA_EGRESS__ALLOW_CIDRS": '["10.0.0.0/8"]'}
    assert read(environ).egress == Egress(allow_hosts=("a",), allow_cidrs=("10.0.0.0/8",))


def test_a_root_may_have_a_variable_of_its_own() -> None:
    assert read({"GAIA_FILES__ROOTS__DATA": "/srv/data"}).files.roots == {"data": Path("/srv/data")}


def test_the_process_s_own_environment_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAIA_WORKER__GRACE_S", "7")
    assert read({}) == Settings()
    assert read().worker.grace_s == 7


def test_other_programs_variables_are_left_alone() -> None:
    assert read({"PATH": "/bin", "GAIANESS": "1", "MY_GAIA_REDIS_URL": "x"}) == Settings()


def test_nothing_can_be_changed_afterwards() -> None:
    settings = read({})
    with pytest.raises(ValidationError):
        settings.redis_url = "redis://h"
    with pytest.raises(ValidationError):
        settings.worker.grace_s = 1


# --- what is misspelt


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GAIA_REDIS_ULR", "did you mean GAIA_REDIS_URL?"),
        ("GAIA_WORKER__GRACE", "did you mean GAIA_WORKER__GRACE_S?"),
        ("GAIA_WORKER_GRACE_S", "did you mean GAIA_WORKER__GRACE_S?"),
        ("GAIA_FILE__ROOTS", "did you mean GAIA_FILES__ROOTS?"),
        ("gaia_worker__grace", "did you mean GAIA_WORKER__GRACE_S?"),
        ("GAIA_REDIS_URL__X", "did you mean GAIA_REDIS_URL?"),
        ("GAIA_WORKER__GRACE_S__X", "did you mean GAIA_WORKER__GRACE_S?"),
        ("GAIA_EGRESS__ALLOW_CIDRS__0", "did you mean GAIA_EGRESS__ALLOW_CIDRS?"),
        ("GAIA_", "is no setting"),
        ("GAIA_QQQQ", "is no setting"),
    ],
)
def test_a_misspelt_variable_stops_the_boot(name: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read({name: "1"})
    assert str(caught.value).startswith(f"{name} is no setting")
    assert hint in str(caught.value)


@pytest.mark.parametrize("variable", sorted(variables()))
def test_every_variable_with_a_letter_more_is_misspelt(variable: str) -> None:
    with pytest.raises(SettingsError, match="is no setting"):
        read({variable + "X": "1"})


def test_a_misspelt_field_of_a_section_given_as_a_whole_is_named() -> None:
    assert complaint(EGRESS='{"allow_cidr": []}').startswith("GAIA_EGRESS__ALLOW_CIDR: ")


# --- what does not fit


@pytest.mark.parametrize("value", ["10.0.0.0/8", "[", "['10.0.0.0/8']", "[" * 100_000, "", " ", "null"])
def test_what_should_be_json_is_told_so_by_its_name_and_an_example(value: str) -> None:
    assert complaint(EGRESS__ALLOW_CIDRS=value) == 'GAIA_EGRESS__ALLOW_CIDRS must be JSON, such as ["10.0.0.0/8"]'


def test_every_list_and_object_has_an_example_that_fits() -> None:
    for variable in variables():
        default = value_of(Settings(), variable)
        if isinstance(default, tuple | dict):
            with pytest.raises(SettingsError) as caught:
                read({variable: "{"})
            head, _, example = str(caught.value).partition(", such as ")
            assert head == f"{variable} must be JSON"
            assert value_of(read({variable: example}), variable)


@pytest.mark.parametrize("value", ["x", "", "{"])
def test_a_section_that_is_no_json_is_named(value: str) -> None:
    assert complaint(EGRESS=value) == "GAIA_EGRESS must be JSON, an object of its fields"


@pytest.mark.parametrize("value", ["[]", "5", "null", '"x"'])
def test_a_section_that_is_no_object_is_named(value: str) -> None:
    assert complaint(EGRESS=value) == "GAIA_EGRESS must be JSON, an object of its fields"


@pytest.mark.parametrize("value", ['"10.0.0.0/8"', "{}", "5", "[5]", '[["10.0.0.0/8"]]'])
def test_json_of_another_shape_is_named(value: str) -> None:
    assert complaint(EGRESS__ALLOW_CIDRS=value).startswith("GAIA_EGRESS__ALLOW_CIDRS")


@pytest.mark.parametrize(
    "cidr",
    [
        "", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8:", "10.0.0.0/8:x", "10.0.0.0/8:0", "10.0.0.0/8:65536", "[::1/128",
        "[::1/128]80", "[::1/128]:", "[::1/128]:-1", "10.0.0.0/8:8_0", "10.0.0.0/8:" + "9" * 5000, "host", "::1/129",
        "10.0.0.0/8:\u0662\u0662", "::1/128:80",
    ],
)  # fmt: skip
def test_an_entry_that_is_no_network_is_named_by_its_place(cidr: str) -> None:
    assert complaint(EGRESS__ALLOW_CIDRS=json.dumps(["10.0.0.0/8", cidr])).startswith("GAIA_EGRESS__ALLOW_CIDRS[1]: ")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.0/8", ("10.0.0.0/8", None)),
        ("127.0.0.1/32:8080", ("127.0.0.1/32", 8080)),
        ("::1/128", ("::1/128", None)),
        ("[::1/128]", ("::1/128", None)),
        ("[::1/128]:8080", ("::1/128", 8080)),
    ],
)
def test_an_entry_may_carry_a_port(text: str, parts: tuple[str, int | None]) -> None:
    assert split_cidr(text) == parts
    assert read({"GAIA_EGRESS__ALLOW_CIDRS": json.dumps([text])}).egress.allow_cidrs == (text,)


@pytest.mark.parametrize(
    "server", ["x", "192.0.2.1:0", "127.1", "[::1]x", "::0001", "resolver.example:53", " 192.0.2.1"]
)
def test_a_name_server_that_is_no_address_is_named_by_its_place(server: str) -> None:
    text = complaint(NETWORK__NAMESERVERS=json.dumps(["192.0.2.1", server]))
    assert text == f"GAIA_NETWORK__NAMESERVERS[1]: {server!r} is neither address, address:port nor [address]:port"


@pytest.mark.parametrize("directory", ["data", "./data", "../data", "~/data", ""])
def test_a_root_is_absolute(directory: str) -> None:
    assert complaint(FILES__ROOTS=json.dumps({"data": directory})).startswith("GAIA_FILES__ROOTS[data]: ")


@pytest.mark.parametrize("name", ["", "Data", "1a", "a b", "a:b", "a/b", "..", "x" * 33, "ä"])
def test_a_root_s_name_is_a_short_word(name: str) -> None:
    assert complaint(FILES__ROOTS=json.dumps({name: "/srv"})).startswith("GAIA_FILES__ROOTS")


@pytest.mark.parametrize("program", ["git", "./git", "*", ""])
def test_a_program_is_absolute(program: str) -> None:
    assert complaint(PROCESS__EXECUTABLES=json.dumps([program])).startswith("GAIA_PROCESS__EXECUTABLES[0]: ")


@pytest.mark.parametrize("variable", sorted(set(variables()) - {"GAIA_FLOWER__BASIC_AUTH"}))
def test_an_empty_value_is_refused(variable: str) -> None:
    """An unset shell variable must not become a setting. Flower's own start refuses the one left out here."""
    with pytest.raises(SettingsError) as caught:
        read({variable: ""})
    assert str(caught.value).startswith(variable)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "x", "-1"])
@pytest.mark.parametrize("variable", [name for name in sorted(variables()) if name.endswith("_S")])
def test_a_duration_is_finite_and_not_negative(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read({variable: value})
    assert str(caught.value).startswith(f"{variable}: ")


@pytest.mark.parametrize("variable", [name for name in sorted(variables()) if name.endswith("PORT")])
@pytest.mark.parametrize("value", ["-1", "65536", "http", "80.5"])
def test_a_port_is_one(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read({variable: value})
    assert str(caught.value).startswith(f"{variable}: ")


def test_every_complaint_comes_at_once() -> None:
    text = complaint(REDIS_ULR="x", WORKER__GRACE_S="x", EGRESS__ALLOW_CIDRS="x", FILES__ROOTS='{"a": "b"}')
    for name in ("GAIA_REDIS_ULR", "GAIA_WORKER__GRACE_S", "GAIA_EGRESS__ALLOW_CIDRS", "GAIA_FILES__ROOTS[a]"):
        assert text.count(name) == 1, text


# --- secrets


URLS = [
    "http://:hunter22@h",
    "hunter22",
    "redis://:hunter22@h:port",
    "redis://:hunter/22@h",
    "redis://h?hunter22=1",
    "htp://h",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("name", ["REDIS_URL", "RESULT_URL"])
def test_a_url_that_is_none_of_a_redis_is_named_once_and_not_shown(name: str, url: str) -> None:
    text = complaint(**{name: url})
    assert text.startswith(f"GAIA_{name} must be redis://")
    assert text.count("GAIA_") == 1
    assert "hunter" not in text


def test_secrets_are_in_no_repr() -> None:
    environ = {
        "GAIA_REDIS_URL": "redis://:hunter22@h/0",
        "GAIA_RESULT_URL": "redis://:hunter33@h/1",
        "GAIA_FLOWER__BASIC_AUTH": "me:hunter44",
    }
    settings = read(environ)
    for text in (repr(settings), str(settings), repr(settings.flower)):
        assert "hunter" not in text


def test_secrets_are_in_no_complaint() -> None:
    section = json.dumps({"basic_auth": ["hunter22"], "port": "hunter33", "password": "hunter44"})
    assert "hunter" not in complaint(FLOWER=section)
    assert "hunter" not in complaint(FLOWER="hunter22")


def test_a_worker_does_not_start_and_says_why_in_one_line() -> None:
    environ = {**os.environ, "GAIA_REDIS_URL": "http://:hunter22@h"}
    ended = subprocess.run(
        [sys.executable, "-c", "import tasks.app"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert ended.stderr.strip().count("\n") == 0
    assert "GAIA_REDIS_URL must be redis://" in ended.stderr
    assert "hunter22" not in ended.stderr


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:9090",
        "ftp://a",
        "http://",
        "http://a:0",
        "http://a:x",
        "http://[",
        "http://a?b",
        "http://a#b",
        "http://a;b",
        'http://a"b',
        "http://a<b",
        "http://a b",
        "http://ü",
    ],
)
def test_a_prometheus_that_has_no_address_is_refused(address: str) -> None:
    assert "GAIA_MONITOR__PROMETHEUS" in complaint(MONITOR__PROMETHEUS=address)


def test_the_address_of_a_prometheus_takes_no_password_and_does_not_show_it() -> None:
    assert "hunter22" not in complaint(MONITOR__PROMETHEUS="http://me:hunter22@prometheus.test/")
