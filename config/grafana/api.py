"""The api subsystem: requests to servers."""

from config.grafana.calls import QUANTILES, body, choice, head
from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, or_zero, quantile, rate, series, share, total

_EXCHANGES = total(rate("gaia_api_exchanges_total", WORKER, 'outcome!="limited"'))

_SERVERS: list[Builder] = [
    graph(
        "Exchanges",
        "Exchanges with servers each second. Limited are those that a limit or a circuit kept from being sent.",
        "reqps",
        Query(total(rate("gaia_api_exchanges_total", WORKER), "outcome"), "{{outcome}}"),
        stacked=True,
    ),
    graph(
        "Exchange time",
        "Quantiles from the first byte sent to the last byte read: what the servers take.",
        "s",
        *(Query(quantile(each, "gaia_api_exchange_seconds", WORKER), name) for each, name in QUANTILES),
    ),
    graph(
        "Failed exchanges",
        "Share of the exchanges that were sent and ended without an answer, or with a status from 500 on.",
        "percentunit",
        Query(
            share(total(rate("gaia_api_exchanges_total", WORKER, 'outcome="failed"')), _EXCHANGES),
            "failed",
        ),
        most=1,
        steps=((0.05, "red"),),
    ),
    graph(
        "Received",
        "Bytes of answers each second.",
        "Bps",
        Query(total(rate("gaia_api_received_bytes_total", WORKER), "worker"), "{{worker}}"),
        stacked=True,
    ),
    graph(
        "Exchanges that follow another",
        "Retried, redirected, or downloads that were resumed.",
        "reqps",
        Query(or_zero(total(rate("gaia_api_events_total", WORKER), "event")), "{{event}}"),
    ),
    graph(
        "Under way",
        "Exchanges under way, and the most that ever were at once.",
        "short",
        Query(series("gaia_api_active", WORKER), "{{worker}}"),
        Query(series("gaia_api_active_peak", WORKER), "{{worker}} peak"),
    ),
]

_CONNECTIONS: list[Builder] = [
    graph(
        "Sessions",
        "Connections to servers: busy ones, and idle ones that are kept for the next request.",
        "short",
        Query(total(series("gaia_api_sessions", WORKER), "state"), "{{state}}"),
        stacked=True,
    ),
    graph(
        "Batches",
        "Requests of batches that have a connection, and those that wait for one.",
        "short",
        Query(total(series("gaia_api_bulk", WORKER), "kind"), "{{kind}}"),
    ),
    bars(
        "Circuits",
        "Circuits that the workers used of late, by the state they last saw.",
        "short",
        or_zero(total(series("gaia_circuits", WORKER), "state")),
        "{{state}}",
    ),
    figure(
        "Kept back",
        "Share of the requests that a limit or a circuit kept from being sent.",
        "percentunit",
        share(
            total(rate("gaia_api_exchanges_total", WORKER, 'outcome="limited"')),
            total(rate("gaia_api_exchanges_total", WORKER)),
        ),
        steps=((0.1, "red"),),
        width=12,
    ),
    figure(
        "Requests a run",
        "Exchanges for each run of api.*; more than one where batches, retries and redirects are.",
        "short",
        share(_EXCHANGES, total(rate("gaia_operations_total", WORKER, 'operation=~"api[.].+"'))),
        width=12,
    ),
]

BOARD = Board(
    "gaia-api",
    "Gaia / API",
    "Requests, batches and downloads: how they go, what the servers take, what keeps them back.",
    (head("api", 5), body("api"), Row("Servers", _SERVERS), Row("Connections", _CONNECTIONS)),
    choices=(WORKERS, choice("api")),
)
