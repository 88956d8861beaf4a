"""`gaia roots`: what the cluster knows, and what forgetting does and does not."""

import pytest
import redis

from gaia.store.roster import KnownRoot, Roster
from tasks.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["roots", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_a_root_is_shown_by_its_identity_until_it_is_forgotten(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAIA_REDIS_URL", fresh_url)
    with redis.Redis.from_url(fresh_url) as client:
        Roster(client, fresh_url).claim(KnownRoot("data", "6c2f" * 8, local=False))
    assert "6c2f" * 8 in run(capsys)[1]
    code, said = run(capsys, "forget", "data")
    assert (code, said) == (
        0,
        "data is forgotten: workers that run go on serving it, the next one that starts enters its own\n",
    )
    assert run(capsys) == (0, "no root is known: the next worker of files that starts enters its own\n")
