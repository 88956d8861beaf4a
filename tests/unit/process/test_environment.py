import pytest

from gaia.contracts import process
from gaia.errors import InvalidCall
from tasks.process.environment import environment


def call(**env: str) -> process.Run:
    return process.Run(argv=("/bin/true",), env=env)


def test_only_three_variables_are_set_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/evil")
    assert set(environment(call(), (), "/home")) == {"PATH", "LANG", "HOME"}
    assert environment(call(), (), "/home")["HOME"] == "/home"
    assert "/evil" not in environment(call(), (), "/home").values()


def test_an_allowed_variable_is_the_callers() -> None:
    found = environment(call(TZ="UTC", LANG="de_DE.UTF-8"), ("TZ", "LANG"), "/home")
    assert found["TZ"] == "UTC"
    assert found["LANG"] == "de_DE.UTF-8"


@pytest.mark.parametrize("name", ["TZ", "PATH", "HOME", "tz", "AWS_SECRET_ACCESS_KEY", " TZ"])
def test_a_variable_that_is_not_listed_is_refused_by_name_alone(name: str) -> None:
    with pytest.raises(InvalidCall, match=name) as caught:
        environment(call(**{name: "hidden"}), ("LANG",), "/home")
    assert caught.value.field == "env"
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES"),
        *("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PERL5LIB", "PERL5OPT", "NODE_OPTIONS", "RUBYOPT"),
        *("BASH_ENV", "ENV", "IFS", "SHELLOPTS", "PS4", "BASH_FUNC_ls%%"),
        *("GIT_SSH_COMMAND", "GIT_EXEC_PATH", "JAVA_TOOL_OPTIONS", "CLASSPATH"),
        *("LUA_INIT", "LUA_PATH", "PHPRC", "R_PROFILE_USER", "OPENSSL_CONF", "OPENSSL_MODULES"),
    ],
)
def test_a_variable_that_runs_code_is_refused_even_if_listed(name: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        environment(call(**{name: "hidden"}), (name,), "/home")
    assert caught.value.field == "env"
    assert name in caught.value.reason
    assert "hidden" not in str(caught.value)
