"""The dashboards are what the generator makes, and every panel says what it shows and asks for what there is."""

import itertools
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache, partial
from typing import Any

import promql_parser as promql
import pytest
import yaml

from config.grafana.boards import files
from tests.support import dashboards, exported
from tests.support.cluster import ROOT
from tests.support.dashboards import FILES, FOLDER, panels

QUERIES = list(dashboards.queries())

RATE_S, SHOWN_S = 41, 43
"""Stand for the two intervals, and for nothing else."""

OF_PROMETHEUS = {"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_series_added"}
RECORDED = {
    rule["record"]
    for group in yaml.safe_load((ROOT / "config" / "prometheus" / "rules" / "recording.yml").read_text())["groups"]
    for rule in group["rules"]
}
FAMILIES = exported.families()
KNOWN = exported.samples() | OF_PROMETHEUS | RECORDED

DIVIDED, MORE = promql.parse("a / b").op, promql.parse("a > b").op

UNITS = {"ops", "reqps", "percentunit", "s", "bytes", "Bps", "short", "x"}


def test_the_files_are_what_the_generator_makes() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == files()


def test_there_are_eight_dashboards_and_a_hundred_and_twenty_panels() -> None:
    assert len(FILES) >= 8
    assert sum(len(panels(each)) for each in FILES.values()) >= 120


def test_no_uid_and_no_title_is_given_twice() -> None:
    for key in ("uid", "title"):
        assert len({board[key] for board in FILES.values()}) == len(FILES)


# --- a dashboard


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_says_what_it_is_for_and_cannot_be_edited_by_hand(name: str) -> None:
    board = FILES[name]
    assert board["uid"] == f"gaia-{name}"
    assert board["description"].endswith(".")
    assert board["editable"] is False
    assert "gaia" in board["tags"]


@pytest.mark.parametrize("name", FILES)
def test_an_id_is_given_once(name: str) -> None:
    ids = [each["id"] for each in FILES[name]["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", FILES)
def test_a_title_is_given_once(name: str) -> None:
    titles = [each["title"] for each in panels(FILES[name])]
    assert sorted(set(titles)) == sorted(titles)


@pytest.mark.parametrize("name", FILES)
def test_no_panel_lies_on_another_or_beyond_the_edge(name: str) -> None:
    places = [each["gridPos"] for each in FILES[name]["panels"]]
    assert all(each["x"] >= 0 and each["x"] + each["w"] <= 24 for each in places)
    for a, b in itertools.combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]


@pytest.mark.parametrize("name", FILES)
def test_the_variables_are_those_that_the_queries_use(name: str) -> None:
    variables = {each["name"]: each for each in FILES[name]["templating"]["list"]}
    asked = {found for each in QUERIES if each.board == name for found in re.findall(r"\$([a-z]\w*)", each.expr)}
    assert asked | {"datasource"} == set(variables)
    for each in variables.values():
        if each["type"] == "query":
            metric = re.fullmatch(r"label_values\((\w+)(\{.*\})?, \w+\)", each["query"])
            assert metric is not None
            assert metric[1] in KNOWN
            assert (each["allValue"], each["includeAll"], each["multi"], each["refresh"]) == (".+", True, True, 2)


# --- a panel


@pytest.mark.parametrize("name", FILES)
def test_a_panel_says_what_it_shows_in_which_unit_and_from_which_source(name: str) -> None:
    for panel in panels(FILES[name]):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert len(panel["description"]) > len(panel["title"])
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        references = [each["refId"] for each in panel["targets"]]
        assert len(set(references)) == len(references)
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", FILES)
def test_a_legend_names_labels_that_the_query_leaves(name: str) -> None:
    for panel in panels(FILES[name]):
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                if re.search(r"\b(sum|count|max|min|avg)\b", target["expr"]):
                    assert re.search(rf'by \([\w, ]*\b{label}\b|"{label}", "\w+", "", ""', target["expr"])


# --- a query


def nodes(expr: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Give every part of an expression, with what it is part of."""
    yield expr, above
    inner = (*above, expr)
    for part in ("lhs", "rhs", "expr", "param", "vector_selector"):
        found = getattr(expr, part, None)
        if found is not None:
            yield from nodes(found, inner)
    for each in getattr(expr, "args", None) or ():
        yield from nodes(each, inner)


@cache
def parsed(name: str) -> list[tuple[dashboards.Query, list[tuple[Any, tuple[Any, ...]]]]]:
    """Give the queries of a dashboard and all their parts; what is no PromQL fails here."""
    filled = partial(dashboards.filled, rate_interval=f"{RATE_S}s", shown=f"{SHOWN_S}s")
    return [(each, list(nodes(promql.parse(filled(each.expr))))) for each in QUERIES if each.board == name]


@pytest.mark.parametrize("name", FILES)
def test_a_query_asks_for_metrics_that_there_are(name: str) -> None:
    for query, parts in parsed(name):
        asked = {each.name for each, _ in parts if isinstance(each, promql.VectorSelector)}
        assert asked, query
        assert asked <= KNOWN, query


@pytest.mark.parametrize("name", FILES)
def test_a_rate_is_over_the_interval_that_grafana_gives(name: str) -> None:
    for query, parts in parsed(name):
        for each, above in parts:
            if isinstance(each, promql.MatrixSelector):
                function = above[-1].func.name
                assert function in {"rate", "increase", "sum_over_time"}, query
                assert each.range == timedelta(seconds=RATE_S if function == "rate" else SHOWN_S), query


@pytest.mark.parametrize("name", FILES)
def test_a_counter_is_never_shown_as_it_is(name: str) -> None:
    for query, parts in parsed(name):
        for each, above in parts:
            if isinstance(each, promql.VectorSelector) and counts(each.name):
                assert any(isinstance(one, promql.Call) and one.func.name in {"rate", "increase"} for one in above), (
                    query
                )


def counts(name: str) -> bool:
    family, _, ending = name.rpartition("_")
    return ending in {"total", "bucket"} or (ending in {"sum", "count"} and family in FAMILIES)


@pytest.mark.parametrize("name", FILES)
def test_a_division_is_not_by_nothing(name: str) -> None:
    """A share of no calls would be NaN, which looks like a fault of the dashboard."""
    for query, parts in parsed(name):
        for each, _ in parts:
            if isinstance(each, promql.BinaryExpr) and each.op == DIVIDED:
                bound = getattr(each.rhs, "expr", None)
                is_some = isinstance(bound, promql.BinaryExpr) and (bound.op, bound.rhs.prettify()) == (MORE, "0")
                assert is_some or isinstance(each.rhs, promql.NumberLiteral), query
