"""The page of dashboards stands alone: what it needs is in it, and its policy allows nothing else."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tasks.cli.dashboard import dashboard as command
from tasks.monitor import dashboard
from tests.support.dashboards import FILES, panels


def parts(text: str, name: str) -> list[tuple[str, str]]:
    return re.findall(rf"<{name}([^>]*)>(.*?)</{name}>", text, re.DOTALL)


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_every_panel_of_every_dashboard_is_on_it() -> None:
    shown = {each["uid"]: [one for one in each["panels"] if one["type"] != "row"] for each in dashboard.boards()}
    for board in FILES.values():
        assert [each["title"] for each in shown[board["uid"]]] == [each["title"] for each in panels(board)]
        for given, found in zip(panels(board), shown[board["uid"]], strict=True):
            assert [each["expr"] for each in given["targets"]] == [each["expr"] for each in found["targets"]]


def test_the_overview_comes_first_and_what_has_no_place_last() -> None:
    names = [each["uid"].removeprefix("gaia-") for each in dashboard.boards()]
    assert names[: len(dashboard.FIRST)] == list(dashboard.FIRST)


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    page = dashboard.served()
    text = page.body.decode()
    ((_, setup), (_, script)) = parts(text, "script")
    ((_, style),) = parts(text, "style")
    policy = dict(each.strip().partition(" ")[::2] for each in page.fields["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == hashed(script)
    assert policy["style-src"] == hashed(style)
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert json.loads(setup)["prometheus"] == "."


def test_nothing_is_loaded_from_anywhere_and_no_markup_is_made_of_text() -> None:
    text = dashboard.served().body.decode()
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text)
    assert "<" not in parts(text, "script")[0][1]


def test_a_file_asks_the_address_and_may_ask_no_other(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    done = CliRunner().invoke(command, ["--prometheus", "http://192.0.2.1:9090/at/", "--output", str(path)])
    assert done.exit_code == 0, done.output
    text = path.read_text()
    assert json.loads(parts(text, "script")[0][1])["prometheus"] == "http://192.0.2.1:9090/at"
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert "connect-src http://192.0.2.1:9090;" in policy
    assert hashed(parts(text, "script")[1][1]) in policy


@pytest.mark.parametrize("address", ["nonsense", 'http://a"><script>', "http://a;b"])
def test_a_file_for_what_is_no_address_is_not_written(tmp_path: Path, address: str) -> None:
    path = tmp_path / "page.html"
    done = CliRunner().invoke(command, ["--prometheus", address, "--output", str(path)])
    assert done.exit_code != 0
    assert not path.exists()
