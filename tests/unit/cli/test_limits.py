"""`gaia limits`: what is typed is what is set, and what makes no sense is told in one line."""

import pytest

from gaia import Gaia
from gaia.store.limits import Limit
from tasks.cli.main import main
from tasks.cli.output import moment
from tasks.limits.protocols import Passage, Rules
from tasks.limits.reach import Reach
from tasks.limits.shared import SharedBreaker


@pytest.fixture(autouse=True)
def named(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAIA_REDIS_URL", fresh_url)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["limits", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_what_is_typed_is_what_is_set(fresh_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "set", "a.example", "--rate-per-s", "0.5", "--burst", "7", "--shadow")
    assert (code, said) == (0, "a.example: rate_per_s=0.5 burst=7 shadow\n")
    code, said = run(capsys, "set", "a.example", "--no-shadow", "--bytes-per-s", "10000000")
    assert (code, said) == (0, "a.example: rate_per_s=0.5 burst=7 bytes_per_s=10000000\n")
    with Gaia(fresh_url) as gaia:
        assert gaia.limits.get("a.example") == Limit(rate_per_s=0.5, burst=7, bytes_per_s=10_000_000.0)
    assert run(capsys, "get", "a.example")[1] == said
    assert "a.example" in run(capsys, "list")[1]


def test_circuits_that_are_not_closed_are_listed_by_name(fresh_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no circuit is open" in run(capsys, "list")[1]
    reach = Reach.to(fresh_url)
    try:
        SharedBreaker(reach).failed(Passage("bad.example", Rules(failure_threshold=1)))
    finally:
        reach.close()
    code, said = run(capsys, "list")
    assert code == 0
    (row,) = [line for line in said.splitlines() if "bad.example" in line]
    with Gaia(fresh_url) as gaia:
        (circuit,) = gaia.limits.circuits()
    cells = [each.strip() for each in row.strip("│").split("│")]
    assert cells == ["bad.example", "open", moment(circuit.since), moment(circuit.until)]


def test_a_reset_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "set", "global", "--concurrency", "3")
    assert run(capsys, "reset", "global") == (0, "global is as in the workers' settings\n")
    assert "nothing was set" in run(capsys, "reset", "global")[1]
    assert "nothing is set" in run(capsys, "list")[1]
    assert run(capsys, "get", "global")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.example", "--rate-per-s", "0"], "'rate_per_s' must be a number from 0.001"),
        (["a.example", "--rate-per-s", "-1"], "'rate_per_s' must be"),
        (["a.example", "--rate-per-s", "nan"], "'rate_per_s' must be"),
        (["a.example", "--burst", "0"], "'burst' must be a whole number"),
        (["http://a.example", "--burst", "1"], "'name' must be 'global', a host"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, "set", *arguments)
    assert code == 1
    assert told in said
    assert said.count("\n") == 1


def test_what_could_be_set_is_named_where_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "set", "a.example")
    assert code == 2
    assert "Say what to set: --rate-per-s, --burst, --concurrency, " in said
    assert "--shadow or --no-shadow" in said


def test_a_value_that_is_no_number_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "set", "a.example", "--burst", "1.5")[0] == 2
