"""The network subsystem: names, bandwidth, connections, probes."""

from config.grafana.calls import body, choice, head
from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, rate, series, share, total

_ALL = total(rate("gaia_dns_lookups_total", WORKER, 'outcome!="failed"'))


def _answered(outcomes: str) -> str:
    return share(total(rate("gaia_dns_lookups_total", WORKER, f'outcome=~"{outcomes}"')), _ALL)


_NAMES: list[Builder] = [
    figure(
        "Hit rate",
        "Share of the look-ups that the worker's own cache answers.",
        "percentunit",
        _answered("hit|stale|negative"),
        width=6,
    ),
    figure(
        "Without a name server",
        "Share of the look-ups that no name server is asked for: from the worker's cache, the cluster's, or a question "
        "under way.",
        "percentunit",
        _answered("hit|stale|negative|joined|shared"),
        width=6,
    ),
    figure("Look-ups", "Look-ups of names each second, of every subsystem.", "ops", _ALL, width=6),
    figure("Names kept", "Answers that the caches hold.", "short", total(series("gaia_dns_names", WORKER)), width=6),
    graph(
        "Look-ups by how they ended",
        "Hit, stale and negative came from the worker's cache, shared from the cluster's; asked went to name servers.",
        "ops",
        Query(total(rate("gaia_dns_lookups_total", WORKER), "outcome"), "{{outcome}}"),
        stacked=True,
    ),
    graph(
        "Look-ups that failed",
        "Share of the questions to name servers that had no answer.",
        "percentunit",
        Query(
            share(
                total(rate("gaia_dns_lookups_total", WORKER, 'outcome="failed"')),
                total(rate("gaia_dns_lookups_total", WORKER, 'outcome=~"asked|failed"')),
            ),
            "failed",
        ),
        most=1,
    ),
    bars(
        "Look-ups by worker",
        "Within the time that is shown.",
        "short",
        total(increase("gaia_dns_lookups_total", WORKER, 'outcome!="failed"'), "worker"),
        "{{worker}}",
    ),
]

_BANDWIDTH: list[Builder] = [
    graph(
        "Waiting for leave",
        "Seconds that calls waited for limits, each second: 1 is one call that waits all the time.",
        "short",
        Query(total(rate("gaia_limit_paused_seconds_total", WORKER), "limit"), "{{limit}}"),
        stacked=True,
    ),
    graph(
        "Answers of bandwidth limits",
        "Chunks that a bandwidth let pass or kept waiting, each second.",
        "ops",
        Query(
            total(rate("gaia_limit_decisions_total", WORKER, 'limit="bytes"'), "level", "outcome"),
            "{{level}} {{outcome}}",
        ),
    ),
    graph(
        "Connection leases",
        "Slots of concurrency limits that the workers hold, by the kind of their level.",
        "short",
        Query(total(series("gaia_limit_leases_held", WORKER), "level"), "{{level}}"),
    ),
    graph(
        "Answers of concurrency limits",
        "Slots given, refused, or given with over 80 % of the limit in use, each second.",
        "ops",
        Query(total(rate("gaia_limit_decisions_total", WORKER, 'limit="slots"'), "outcome"), "{{outcome}}"),
        width=12,
    ),
    graph(
        "Connections of pages",
        "Connections of Chromium through the proxy.",
        "short",
        Query(total(series("gaia_proxy_connections", WORKER)), "open"),
        width=12,
    ),
]

BOARD = Board(
    "gaia-network",
    "Gaia / Network",
    "Names, bandwidth, connections and probes.",
    (head("network", 5), body("network"), Row("Names", _NAMES), Row("Bandwidth and connections", _BANDWIDTH)),
    choices=(WORKERS, choice("network")),
)
