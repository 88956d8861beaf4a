"""Each alert fires where it should and is silent where it should be, by promtool; and it has what it needs."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks import metrics
from tests.support import exported, rules
from tests.support.cluster import ROOT
from tests.support.prometheus import FOLDER, RULES
from tests.support.rules import ALERTS, RECORDING, RECORDS, Case, W

STEPS = 80
"""Minutes: the longest `for` is an hour."""

LONG = {
    "GaiaErrorBudgetBurnMedium": 120,
    "GaiaWaitBudgetBurnMedium": 120,
    "GaiaAvailabilityViolated": 370,
    "GaiaErrorBudgetBurnSlow": 1100,
}
"""Minutes of what wants calls to have been seen for a quarter of its window; hours are not looked at each minute."""


def still(value: float) -> str:
    return f"{value:g}+0x{STEPS}"


def rising(per_minute: float, first: float = 0) -> str:
    return rules.rising(per_minute, first, STEPS)


def long(per_minute: float) -> str:
    """A counter, for as long as any case takes."""
    return rules.rising(per_minute, 0, max(LONG.values()))


def alternating(*values: float) -> str:
    return " ".join(f"{each:g}" for each in values * STEPS)


def runs(queue: str, ok: float, error: float) -> Case:
    name = f'gaia_operations_total{{operation="{queue}.x",{W}'
    return {f'{name},outcome="ok"}}': rising(ok), f'{name},outcome="error"}}': rising(error)}


def spread(metric: str, queue: str, below: float, bound: str, over: str) -> Case:
    """A hundred a minute, `below` of them under a bound, the others under the next."""
    name = f'{metric}_bucket{{operation="{queue}.x",{W}'
    ends = {bound: below, over: 100, "+Inf": 100}
    return {f'{name},le="{le}"}}': rising(count) for le, count in ends.items()}


def waits(below: float) -> Case:
    return rules.started(long(below), long(100))


def full(queue: str, waiting: float) -> Case:
    return {
        f'gaia_operations_running{{operation="{queue}.x",{W},queues="{queue}"}}': still(10),
        f'gaia_slots{{{W},queues="{queue}"}}': still(10),
        f'celery_queue_length{{queue_name="{queue}"}}': still(waiting),
    }


def one(metric: str, fires: float, silent: float, labels: str = W) -> tuple[Case, Case]:
    return {f"{metric}{{{labels}}}": still(fires)}, {f"{metric}{{{labels}}}": still(silent)}


def counted(metric: str, fires: float, silent: float = 0, labels: str = W) -> tuple[Case, Case]:
    """Counters that rise by so many a minute."""
    name = f"{metric}{{{labels}}}"
    return {name: rising(fires, 3)}, {name: rising(silent, 3)}


def blamed(error: str, errors: float, ok: float) -> Case:
    return rules.ended(long(ok), long(errors), error)


def dns(hit: float, asked: float) -> Case:
    name = f"gaia_dns_lookups_total{{{W},outcome="
    return {f'{name}"hit"}}': rising(hit), f'{name}"asked"}}': rising(asked)}


def limited(kept: float) -> Case:
    name = f"gaia_api_exchanges_total{{{W},outcome="
    return {f'{name}"limited"}}': rising(kept), f'{name}"succeeded"}}': rising(100)}


def gate(active: float, waiting: float) -> Case:
    return {
        f"gaia_files_active{{{W}}}": still(active),
        f"gaia_files_limit{{{W}}}": still(500),
        f"gaia_files_waiting{{{W}}}": still(waiting),
    }


def served(workers: float, queue: str = "api") -> Case:
    return {**waiting(queue), f'celery_active_worker_count{{queue_name="{queue}"}}': still(workers)}


def waiting(queue: str) -> Case:
    """Calls in a queue; who serves it is not known, as of stock Celery's."""
    return {f'celery_queue_length{{queue_name="{queue}"}}': still(3)}


def unhealthy(well: float) -> Case:
    name = 'gaia_subsystem_workers{subsystem="api",status='
    return {f'{name}"unhealthy"}}': still(1), f'{name}"healthy"}}': still(well)}


def share(metric: str, of: str, value: float, labels: str = W) -> Case:
    return {f"{metric}{{{labels}}}": still(value), f"{of}{{{labels}}}": still(100)}


def throughput(per_minute: float) -> Case:
    return {**runs("api", per_minute, 0), **served(1)}


def paused(name: str) -> Case:
    return {f'gaia_paused{{name="{name}"}}': still(1)}


def retried(per_minute: float) -> Case:
    return {f'gaia_retries_total{{operation="api.x",{W}}}': rising(per_minute), **runs("api", 60, 0)}


STAGE = f'{W},queues="process"'
PAGES = f'{W},queues="browser"'

CASES: dict[str, tuple[Case, Case]] = {
    "GaiaApiErrorRateHigh": (runs("api", 60, 10), runs("api", 60, 1)),
    "GaiaFilesErrorRateHigh": (runs("files", 60, 10), runs("files", 60, 1)),
    "GaiaBrowserErrorRateHigh": (runs("browser", 60, 10), runs("browser", 60, 1)),
    "GaiaProcessFailureRateHigh": (runs("process", 60, 10), runs("process", 60, 5)),
    "GaiaNetworkErrorRateHigh": (runs("network", 60, 10), runs("network", 60, 5)),
    "GaiaApiLatencyHigh": (
        spread("gaia_operation_seconds", "api", 80, "5.0", "10.0"),
        spread("gaia_operation_seconds", "api", 99, "5.0", "10.0"),
    ),
    "GaiaFilesLatencyHigh": (
        spread("gaia_operation_seconds", "files", 80, "2.5", "5.0"),
        spread("gaia_operation_seconds", "files", 99, "2.5", "5.0"),
    ),
    "GaiaApiPoolExhausted": (full("api", 5), full("api", 0)),
    "GaiaBrowserPoolExhausted": (full("browser", 5), full("browser", 0)),
    "GaiaApiRateLimited": (limited(30), limited(5)),
    "GaiaDiskFull": (
        {f'gaia_errors_total{{operation="files.x",error="DiskFull",{W}}}': rising(1)},
        {f'gaia_errors_total{{operation="files.x",error="QuotaExceeded",{W}}}': rising(1)},
    ),
    "GaiaFilesConcurrencyHigh": (gate(480, 0), gate(200, 0)),
    "GaiaBrowserTabsExcessive": one("gaia_descendants", 300, 40, PAGES),
    "GaiaProcessMemoryHigh": one("gaia_descendants_resident_bytes", 5e9, 1e9, STAGE),
    "GaiaProcessCpuHigh": counted("gaia_descendants_cpu_seconds_total", 300, 100, STAGE),
    "GaiaNetworkConnectionLimitHigh": counted(
        "gaia_limit_decisions_total", 20, 5, f'{W},limit="slots",level="host",outcome="near"'
    ),
    "GaiaDnsHitRateLow": (dns(100, 100), dns(190, 10)),
    "GaiaCircuitOpen": (
        {f'gaia_circuits{{{W},state="open"}}': alternating(1, 1, 0)},
        {f'gaia_circuits{{{W},state="open"}}': alternating(1, 0, 0), f'gaia_circuits{{{W},state="closed"}}': still(1)},
    ),
    "GaiaLimitsWithoutRedis": (
        {f'gaia_limits_away_total{{{W},choice="open"}}': rising(2)},
        {f'gaia_limits_away_total{{{W},choice="open"}}': f"0+0x{STEPS - 4} 9+0x4"},
    ),
    "GaiaLimitRefusalsHigh": counted(
        "gaia_limit_decisions_total", 6000, 600, f'{W},limit="rate",level="host",outcome="refused"'
    ),
    "GaiaQueueWaitHigh": (
        spread("gaia_queue_wait_seconds", "api", 80, "10.0", "60.0"),
        spread("gaia_queue_wait_seconds", "api", 99, "10.0", "60.0"),
    ),
    "GaiaQueueOldestTaskOld": one("celery_queue_oldest_task_age_seconds", 400, 100, 'queue_name="api"'),
    "GaiaQueueGrowing": (
        {'celery_queue_length{queue_name="api"}': rising(20, 900)},
        {'celery_queue_length{queue_name="api"}': still(5000)},
    ),
    "GaiaQueueWithoutWorker": (served(0), served(1)),
    "GaiaQueuePaused": ({'gaia_paused{name="api"}': still(1)}, {}),
    "GaiaUnackedHigh": one("celery_unacked_messages", 20000, 500, ""),
    "GaiaDelayedOverdue": one("gaia_delayed_overdue_seconds", 100, 1, ""),
    "GaiaThroughputLow": (throughput(0), throughput(60)),
    "GaiaDeadLettersNew": counted("gaia_dead_letters_total", 1, 0, f'{W},reason="refused"'),
    "GaiaCallKillsWorkers": (
        {f'gaia_dead_letters_total{{{W},reason="workers_lost"}}': rising(1)},
        {f'gaia_dead_letters_total{{{W},reason="refused"}}': rising(1)},
    ),
    "GaiaDeadLettersMany": one("gaia_dead_letters_kept", 9500, 100, ""),
    "GaiaLeasesLost": counted("gaia_leases_lost_total", 1),
    "GaiaWorkersDying": counted("gaia_leases_restored_total", 1),
    "GaiaCommitsRefused": counted("gaia_commits_refused_total", 1),
    "GaiaRetriesHigh": (retried(20), retried(2)),
    "GaiaBrokerFailing": counted("gaia_broker_failures_total", 5, 0, f'{W},step="turn"'),
    "GaiaWorkerDown": (
        {'celery_worker_up{worker="w@h"}': still(0), "gaia_redis_up": still(1)},
        {'celery_worker_up{worker="w@h"}': still(0), "gaia_redis_up": still(0)},
    ),
    "GaiaWorkerNotReady": one("gaia_node_ready", 0, 1),
    "GaiaSubsystemUnhealthy": (unhealthy(0), unhealthy(1)),
    "GaiaWorkerMemoryHigh": one("process_resident_memory_bytes", 3e9, 3e8),
    "GaiaWorkerMemoryGrowing": (
        {f"process_resident_memory_bytes{{{W}}}": rising(20e6, 400e6)},
        {f"process_resident_memory_bytes{{{W}}}": rising(1e6, 600e6)},
    ),
    "GaiaThreadsGrowing": ({f"gaia_threads{{{W}}}": rising(1, 160)}, {f"gaia_threads{{{W}}}": still(160)}),
    "GaiaWorkerDescriptorsHigh": (
        share("process_open_fds", "process_max_fds", 90),
        share("process_open_fds", "process_max_fds", 20),
    ),
    "GaiaWorkerRenewsOften": counted("gaia_worker_renewals_total", 0.2),
    "GaiaWorkerRestarts": counted("process_start_time_seconds", 60),
    "GaiaWorkerLoopSlow": one("gaia_loop_age_seconds", 20, 0.5),
    "GaiaRedisDown": one("gaia_redis_up", 0, 1, ""),
    "GaiaRedisMemoryHigh": (
        share("gaia_redis_memory_bytes", "gaia_redis_memory_limit_bytes", 90, ""),
        share("gaia_redis_memory_bytes", "gaia_redis_memory_limit_bytes", 50, ""),
    ),
    "GaiaRedisClientsMany": one("gaia_redis_clients", 6000, 200, ""),
    "GaiaMonitorDown": ({}, {'up{job="gaia-monitor"}': still(1)}),
    "GaiaWorkerNotScraped": one("up", 0, 1),
    "GaiaMonitorBlind": one("gaia_monitor_sample_age_seconds", 120, 2, ""),
    "GaiaMonitorEventsLate": one("gaia_monitor_event_lag_seconds", 20, 0.1, ""),
    "GaiaErrorBudgetBurnFast": (blamed("InternalError", 5, 95), blamed("FileMissing", 50, 50)),
    "GaiaErrorBudgetBurnMedium": (blamed("Unreachable", 8, 992), blamed("Unreachable", 2, 998)),
    "GaiaErrorBudgetBurnSlow": (blamed("PoolExhausted", 2, 998), blamed("PoolExhausted", 0.5, 999.5)),
    "GaiaWaitBudgetBurnFast": (waits(80), waits(95)),
    "GaiaWaitBudgetBurnMedium": (waits(92), waits(96)),
    "GaiaAvailabilityViolated": (blamed("InternalError", 10, 990), blamed("InternalError", 0.2, 1000)),
}
"""What makes each alert fire, and what is near it and does not."""


def test_there_are_at_least_thirty_and_each_has_its_cases() -> None:
    assert len(ALERTS) >= 30
    assert CASES.keys() == ALERTS.keys()


def begun(minute: float) -> Case:
    """When the worker says that it began; before it was scraped the first time, if that was a minute of the case."""
    return {f"process_start_time_seconds{{{W}}}": f"{minute * 60:g}+0x{STEPS}"}


COUNTED = {
    "GaiaDeadLettersNew": f'gaia_dead_letters_total{{{W},reason="refused"}}',
    "GaiaCallKillsWorkers": f'gaia_dead_letters_total{{{W},reason="workers_lost"}}',
    "GaiaWorkersDying": f"gaia_leases_restored_total{{{W}}}",
    "GaiaDiskFull": f'gaia_errors_total{{operation="files.write",error="DiskFull",{W}}}',
}
"""What fires upon the first count."""

LATE = STEPS - 4
"""A minute of the case, within the shortest window of these before its end."""


def after(minute: int, values: str) -> str:
    return f"_x{minute} {values}"


EARLY: dict[str, Case] = {
    name: {
        series: after(LATE, f"2+0x{STEPS}"),
        f"process_start_time_seconds{{{W}}}": after(LATE, f"{(LATE - 1) * 60}+0x{STEPS}"),
    }
    for name, series in COUNTED.items()
}
"""What a worker counted before it was scraped for the first time."""

GAPS: dict[str, Case] = {
    f"{name}, {what}": {series: values.format(n="3"), f"process_start_time_seconds{{{W}}}": values.format(n="-36000")}
    for name, series in COUNTED.items()
    for what, values in {
        "one scrape missed within the window": f"{{n}}+0x{LATE - 1} stale {{n}}+0x{STEPS}",
        "one scrape missed five minutes ago": f"{{n}}+0x{STEPS - 8} stale {{n}}+0x{STEPS}",
        "one scrape missed ten minutes ago": f"{{n}}+0x{STEPS - 13} stale {{n}}+0x{STEPS}",
        "one scrape missed a quarter of an hour ago": f"{{n}}+0x{STEPS - 18} stale {{n}}+0x{STEPS}",
        "one scrape missed an hour ago": f"{{n}}+0x{STEPS - 63} stale {{n}}+0x{STEPS}",
        "none for twenty minutes": f"{{n}}+0x{STEPS - 30} stale _x20 {{n}}+0x{STEPS}",
        "a Prometheus started afresh": f"_x{LATE} {{n}}+0x{STEPS}",
    }.items()
}
"""Old counts that Prometheus did not see all the time."""

FURTHER: dict[str, tuple[str, str, Case]] = {
    "the first error of a full disk": (
        *("GaiaDiskFull", "fires"),
        {COUNTED["GaiaDiskFull"]: after(LATE, f"1+0x{STEPS}"), **begun(-600)},
    ),
    "a step of memory up, and nothing before or after it": (
        *("GaiaWorkerMemoryGrowing", "silent"),
        {f"process_resident_memory_bytes{{{W}}}": f"400e6+0x{STEPS - 26} 900e6+0x{STEPS}"},
    ),
    "a queue of stock Celery waits, and no worker is known": ("GaiaQueueWithoutWorker", "silent", waiting("stock")),
    "none ends, and a queue of stock Celery waits": (
        *("GaiaThroughputLow", "silent"),
        {**runs("api", 0, 0), **waiting("stock"), 'celery_active_worker_count{queue_name="api"}': still(1)},
    ),
    "none ends, and a paused queue waits": (
        *("GaiaThroughputLow", "silent"),
        {**throughput(0), **paused("api")},
    ),
    "none ends, a paused queue and another wait": (
        *("GaiaThroughputLow", "fires"),
        {**throughput(0), **paused("files"), **served(1, "files")},
    ),
    "none ends, a queue waits, one of its operations is paused": (
        *("GaiaThroughputLow", "fires"),
        {**throughput(0), **paused("api.x")},
    ),
    "none ends, and workers' own queues wait": (
        *("GaiaThroughputLow", "fires"),
        {**runs("api", 0, 0), **waiting("gaia.node")},
    ),
}
"""What else an alert has to tell apart: its name, what it does, and when."""


# --- by promtool


@pytest.fixture(scope="module")
def failures(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What promtool says of all cases, in one run; each alert by itself, for a case has all its rules evaluated."""
    folder, paths = tmp_path_factory.mktemp("promtool"), []
    for name, rule in ALERTS.items():
        alone, path = folder / f"{name}.rules.yml", folder / f"{name}.yml"
        alone.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": [rule]}]}))
        files = [str(alone)]
        if any(each["record"] in rule["expr"] for each in RECORDS):
            files.append(str(RECORDING))
        tests = [case(name, number, f"{LONG.get(name, STEPS) - 1}m") for number in (0, 1)]
        tests += [told(f"early {name}", name, EARLY[name])] if name in EARLY else []
        tests += [silent(what, name, series) for what, series in GAPS.items() if what.startswith(f"{name},")]
        for what, (of, does, series) in FURTHER.items():
            tests += [(told if does == "fires" else silent)(what, name, series)] if of == name else []
        pause = "5m" if LONG.get(name, 0) > 300 else "1m"
        path.write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": pause, "tests": tests}))
        paths.append(path)
    command = [promtool, "test", "rules", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "expr:" in done.stderr + done.stdout or done.returncode == 0, done.stderr
    assert (done.stderr + done.stdout).count("Unit Testing:") == len(paths), done.stderr
    return plain(done)


def plain(done: "subprocess.CompletedProcess[str]") -> str:
    """What promtool says, its expressions as they were given: it quotes them."""
    return (done.stdout + done.stderr).replace('\\"', '"')


def case(name: str, number: int, at: str) -> dict[str, Any]:
    word = ("fires", "silent")[number]
    # The word is a label that no alert has: it names the case in what promtool says.
    expr = f'count(ALERTS{{alertname="{name}",alertstate="firing",case!="{word}"}})'
    return {
        "interval": "1m",
        "input_series": rules.told(CASES[name][number]),
        "promql_expr_test": [
            {"expr": expr, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}] if word == "fires" else []}
        ],
    }


def told(word: str, name: str, series: Case) -> dict[str, Any]:
    """A case that fires, besides the two that every alert has."""
    found = case(name, 0, f"{STEPS - 1}m")
    (asked,) = found["promql_expr_test"]
    asked["expr"] = asked["expr"].replace('case!="fires"', f'case!="{word}"')
    found["input_series"] = rules.told(series)
    return found


def silent(word: str, name: str, series: Case) -> dict[str, Any]:
    """A case that fires at no minute."""
    found = told(word, name, series)
    (asked,) = found["promql_expr_test"]
    found["promql_expr_test"] = [{**asked, "eval_time": f"{each}m", "exp_samples": []} for each in range(STEPS)]
    return found


@pytest.mark.parametrize("name", sorted(EARLY))
def test_what_a_new_worker_counted_before_it_was_scraped_fires(failures: str, name: str) -> None:
    assert f'case!="early {name}"' not in failures, failures


@pytest.mark.parametrize("what", sorted(GAPS))
def test_an_old_count_is_not_new_because_prometheus_did_not_see_it_for_a_while(failures: str, what: str) -> None:
    assert f'case!="{what}"' not in failures, failures


@pytest.mark.parametrize("what", sorted(FURTHER))
def test_an_alert_tells_apart(failures: str, what: str) -> None:
    assert f'case!="{what}"' not in failures, failures


@pytest.mark.parametrize("word", ["fires", "silent"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_an_alert_fires_or_stays_silent(failures: str, name: str, word: str) -> None:
    assert not re.search(rf'alertname="{name}",alertstate="firing",case!="{word}"', failures), failures


def test_a_case_that_is_wrong_is_found(promtool: Path, tmp_path: Path) -> None:
    tests = [case("GaiaRedisDown", number, f"{STEPS - 1}m") for number in (0, 1)]
    tests[0]["input_series"], tests[1]["input_series"] = tests[1]["input_series"], tests[0]["input_series"]
    given = {"rule_files": list(map(str, RULES)), "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(given))
    command = [promtool, "test", "rules", tmp_path / "cases.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    for word in ("fires", "silent"):
        assert f'alertname="GaiaRedisDown",alertstate="firing",case!="{word}"' in plain(done)


def test_promtool_takes_the_rules_and_the_configuration(promtool: Path) -> None:
    for arguments in (["check", "rules", *RULES], ["check", "config", FOLDER / "prometheus.yml"]):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_has_no_remark_on_the_names_of_a_worker(promtool: Path) -> None:
    given = metrics.exposition()
    done = subprocess.run([promtool, "check", "metrics"], input=given, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# --- what an alert needs


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_its_runbook_is(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/monitoring.md#{name.lower()}"
    assert f"\n#### {name}\n" in (ROOT / "docs" / "monitoring.md").read_text()


def test_every_metric_that_a_rule_asks_for_is_one() -> None:
    ours = exported.families() | {"up"} | {rule["record"] for rule in RECORDS}
    asked = set()
    for rule in (*ALERTS.values(), *RECORDS):
        expr = re.sub(r'"[^"]*"|\{[^}]*\}', "", rule["expr"])
        asked |= set(re.findall(r"\b(?:queue:|worker:|gaia:|gaia_|celery_|process_|up\b)[\w:]*", expr))
    endings = re.compile(r"_(total|bucket|count|sum)$")
    assert {each for each in asked if each not in ours and endings.sub("", each) not in ours} == set()
