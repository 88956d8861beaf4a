"""The rules with their times divided are the same rules, and what is known of an alert is what its file says."""

from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from tests.faults import scaling
from tests.faults.rows import ROWS
from tests.faults.scaling import NotScalableError, scaled_config, scaled_expr, scaled_rules, times_s
from tests.support.prometheus import FOLDER, RULES

CASES = {
    "rate(x[5m]) > 0.1": "rate(x[15000ms]) > 0.1",
    "x offset 1m > 3": "x offset 3000ms > 3",
    "rate(x[5m] offset 1h30m)": "rate(x[15000ms] offset 270000ms)",
    "avg_over_time((y > bool 1)[1d:5m]) > 0.05": "avg_over_time((y > bool 1)[4320000ms:15000ms]) > 0.05",
    "avg_over_time(y[1h:])": "avg_over_time(y[180000ms:])",
    "60 * sum_over_time(y[1h:1m]) > 2.5": "60 * sum_over_time(y[180000ms:3000ms]) > 2.5",
    "sum_over_time(x[1d]) / (sum_over_time(y[1d]) > 0)": (
        "sum_over_time(x[4320000ms]) / (sum_over_time(y[4320000ms]) > 0)"
    ),
    "celery_queue_oldest_task_age_seconds > 300": "celery_queue_oldest_task_age_seconds > 15",
    'gaia_monitor_sample_age_seconds{a="b"} > 60': None,
    'label_replace(rate(x{a="[5m]"}[5m]), "q", "$1", "o", "(\\\\w+)\\\\..*")': (
        'label_replace(rate(x{a="[5m]"}[15000ms]), "q", "$1", "o", "(\\\\w+)\\\\..*")'
    ),
    "x and on (instance) time() - process_start_time_seconds < 900": (
        "x and on (instance) time() - process_start_time_seconds < 45"
    ),
    'time() - process_start_time_seconds{a="b"} < 900': None,
    "gaia_loop_age_seconds > 5": "gaia_loop_age_seconds > 5",
    "queue:gaia_operations:rate5m > 0.02": "queue:gaia_operations:rate5m > 0.02",
}


@pytest.mark.parametrize("expr", CASES)
def test_times_are_divided_wherever_they_stand_and_nothing_else_is(expr: str) -> None:
    wanted = CASES[expr]
    if wanted is None:
        with pytest.raises(NotScalableError):
            scaled_expr(expr, 20)
    else:
        assert scaled_expr(expr, 20) == wanted


def read(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("factor", [20, 60])
@pytest.mark.parametrize("path", RULES, ids=lambda each: each.stem)
def test_every_committed_rule_can_be_scaled_and_a_window_still_holds_four_scrapes(path: Path, factor: float) -> None:
    before, after = read(path.read_text()), read(scaled_rules(path.read_text(), factor))
    assert [each.get("alert", each.get("record")) for each in after] == [
        each.get("alert", each.get("record")) for each in before
    ]
    scrape_s = scaling.duration_s(scaling.SCRAPE)
    for old, new in zip(before, after, strict=True):
        assert times_s(promql.parse(new["expr"])) == pytest.approx(
            [each / factor for each in times_s(promql.parse(old["expr"]))], abs=0.001
        )
        assert all(each >= 4 * scrape_s / factor for each in scaling.spans_s(promql.parse(new["expr"]), ["range"]))
        if "for" in old:
            assert scaling.duration_s(new["for"]) == pytest.approx(scaling.duration_s(old["for"]) / factor, abs=0.001)


def test_the_configuration_scrapes_and_evaluates_as_much_more_often(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    found = yaml.safe_load(scaled_config(20, tmp_path)(text))
    assert found["global"] == {"scrape_interval": "1500ms", "scrape_timeout": "1500ms", "evaluation_interval": "750ms"}
    assert found["scrape_configs"][1]["http_sd_configs"][0]["refresh_interval"] == "750ms"
    assert found["rule_files"] == [f"{tmp_path}/*.yml"]
    assert scaled_config(1, FOLDER / "rules")(text) == text.replace("rules/*.yml", f"{FOLDER}/rules/*.yml")


def test_what_is_known_of_an_alert_includes_what_it_reads_by_record() -> None:
    known = scaling.alerts(RULES)
    assert (known["GaiaApiLatencyHigh"].for_s, known["GaiaApiLatencyHigh"].window_s) == (600, 300)
    assert known["GaiaErrorBudgetBurnSlow"].window_s == 3 * 86400
    assert (known["GaiaErrorBudgetBurnFast"].window_s, known["GaiaAvailabilityViolated"].window_s) == (3600, 86400)
    assert (known["GaiaQueueOldestTaskOld"].window_s, known["GaiaQueueOldestTaskOld"].age_s) == (0, 300)
    assert known["GaiaWorkersDying"].counts
    assert known["GaiaDiskFull"].counts
    assert (known["GaiaCallKillsWorkers"].window_s, known["GaiaCallKillsWorkers"].age_s) == (3600, 0)
    assert not known["GaiaApiLatencyHigh"].counts


@pytest.mark.parametrize("name", ROWS)
def test_a_row_expects_alerts_that_there_are(name: str) -> None:
    known, fault = scaling.alerts(RULES).keys(), ROWS[name]
    assert {*fault.expected, *fault.allowed} <= known
    assert fault.expected or name == "control"
