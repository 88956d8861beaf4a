"""Limits and circuits, of the whole cluster."""

from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, or_zero, rate, series, share, total

_ALL = total(rate("gaia_limit_decisions_total", WORKER, 'outcome=~"admitted|refused"'))
_REFUSED = total(rate("gaia_limit_decisions_total", WORKER, 'outcome="refused"'))


def _by(limit: str) -> str:
    return total(rate("gaia_limit_decisions_total", WORKER, f'limit="{limit}"'), "level", "outcome")


_NOW: list[Builder] = [
    figure("Decisions", "Answers of limits each second; a request may ask several levels.", "ops", _ALL, width=6),
    figure(
        "Refused",
        "Share of the answers that are refusals; each is a call put off.",
        "percentunit",
        share(_REFUSED, _ALL),
        steps=((0.1, "orange"), (0.5, "red")),
        width=6,
    ),
    figure(
        "Open circuits",
        "Circuits of hosts to which nothing is sent, as the workers last saw them.",
        "short",
        or_zero(total(series("gaia_circuits", WORKER, 'state="open"'))),
        steps=((1, "red"),),
        width=6,
    ),
    figure(
        "Slots held",
        "Slots of concurrency limits that workers hold, of all levels.",
        "short",
        total(series("gaia_limit_leases_held", WORKER)),
        width=6,
    ),
]

_LIMITS: list[Builder] = [
    graph("Rates", "Answers of rates each second.", "ops", Query(_by("rate"), "{{level}} {{outcome}}")),
    graph(
        "Concurrency", "Answers of concurrency limits each second.", "ops", Query(_by("slots"), "{{level}} {{outcome}}")
    ),
    graph("Bandwidth", "Answers of bandwidths each second.", "ops", Query(_by("bytes"), "{{level}} {{outcome}}")),
    graph(
        "Refusals by level",
        "Which level refuses: the cluster's, a host's, a key's, a job's or a pool's.",
        "ops",
        Query(
            total(rate("gaia_limit_decisions_total", WORKER, 'outcome="refused"'), "limit", "level"),
            "{{limit}} {{level}}",
        ),
        stacked=True,
    ),
    graph(
        "Near the limit",
        "Answers each second with over 80 % of the limit in use, and what shadow limits would have refused.",
        "ops",
        Query(
            or_zero(
                total(rate("gaia_limit_decisions_total", WORKER, 'outcome=~"near|shadow_refused"'), "limit", "outcome")
            ),
            "{{limit}} {{outcome}}",
        ),
    ),
    graph(
        "Waiting for leave",
        "Seconds that calls waited for limits, each second.",
        "short",
        Query(total(rate("gaia_limit_paused_seconds_total", WORKER), "limit"), "{{limit}}"),
        stacked=True,
    ),
]

_CIRCUITS: list[Builder] = [
    graph(
        "Circuits",
        "Circuits that the workers used of late, by the state they last saw.",
        "short",
        Query(total(series("gaia_circuits", WORKER), "state"), "{{state}}"),
        stacked=True,
    ),
    graph(
        "Answers of circuits",
        "Passages, probes and requests kept out, each second.",
        "ops",
        Query(total(rate("gaia_circuit_answers_total", WORKER), "answer"), "{{answer}}"),
    ),
    graph(
        "Slots held by level",
        "Slots of concurrency limits that the workers hold.",
        "short",
        Query(total(series("gaia_limit_leases_held", WORKER), "level"), "{{level}}"),
    ),
    bars(
        "All decisions",
        "Within the time that is shown.",
        "short",
        total(increase("gaia_limit_decisions_total", WORKER), "limit", "outcome"),
        "{{limit}} {{outcome}}",
        width=12,
    ),
    graph(
        "Without Redis",
        "Limits asked for each second while Redis did not answer, by what was chosen for that.",
        "ops",
        Query(or_zero(total(rate("gaia_limits_away_total", WORKER), "choice")), "{{choice}}"),
        steps=((0.01, "red"),),
        width=12,
    ),
]

BOARD = Board(
    "gaia-limits",
    "Gaia / Limits",
    "Rates, bandwidth, concurrency and circuits: what they let pass, refuse and keep waiting.",
    (Row("Now", _NOW), Row("Limits", _LIMITS), Row("Circuits and slots", _CIRCUITS)),
    choices=(WORKERS,),
)
