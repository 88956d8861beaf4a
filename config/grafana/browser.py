"""The browser subsystem: Chromium, its tabs and sessions."""

from config.grafana.calls import body, choice, head
from config.grafana.panels import WORKERS, Board, Builder, Query, Row, bars, figure, graph
from config.grafana.promql import WORKER, increase, or_zero, rate, series, total

_OF_BROWSERS = 'queues=~"(.*,)?browser(,.*)?"'


def _live(kind: str) -> str:
    return total(series("gaia_browser_live", WORKER, f'kind="{kind}"'))


def _events(*names: str) -> str:
    found = f'event=~"{"|".join(names)}"'
    return or_zero(total(rate("gaia_browser_events_total", WORKER, found), "event"))


_LIVE: list[Builder] = [
    figure("Browsers", "Chromium instances that live.", "short", _live("instances")),
    figure("Tabs in use", "Tabs in which something is done.", "short", _live("tabs")),
    figure("Warm tabs", "Tabs that are open ahead, for whoever comes.", "short", _live("warm_tabs")),
    figure("Idle tabs", "Tabs that are kept for the same tenant.", "short", _live("idle_tabs")),
    figure("Sessions", "Sessions that callers hold open.", "short", _live("sessions")),
    figure("Memory", "Memory of all browsers.", "bytes", _live("memory_bytes")),
    graph(
        "Tabs and sessions",
        "What is open, over time.",
        "short",
        *(Query(_live(each), each.replace("_", " ")) for each in ("instances", "tabs", "warm_tabs", "sessions")),
    ),
    graph(
        "Memory of browsers",
        "As the pool measures it, by worker.",
        "bytes",
        Query(total(series("gaia_browser_live", WORKER, 'kind="memory_bytes"'), "worker"), "{{worker}}"),
        stacked=True,
    ),
    graph(
        "Processes",
        "Processes below the workers that serve this queue; every tab is one or more.",
        "short",
        Query(series("gaia_descendants", WORKER, _OF_BROWSERS), "{{worker}}"),
        steps=((200, "red"),),
    ),
]

_EVENTS: list[Builder] = [
    graph(
        "Browsers come and go",
        "Launches and recycling each second. Many launches mean that browsers end early.",
        "ops",
        Query(_events("launches", "recycled"), "{{event}}"),
    ),
    graph(
        "Tabs opened and used again",
        "Warm and used-again tabs save the time of opening one.",
        "ops",
        Query(_events("tabs_opened", "reused", "warm"), "{{event}}"),
        stacked=True,
    ),
    graph(
        "What goes wrong",
        "Crashes, errors of the DevTools protocol, tabs over their memory, and runs that were repeated.",
        "ops",
        Query(_events("browser_crashes", "tab_crashes", "protocol_errors", "over_memory", "retries"), "{{event}}"),
        stacked=True,
    ),
    graph(
        "Sessions come and go",
        "Sessions opened and expired, extensions loaded, each second.",
        "ops",
        Query(_events("sessions_opened", "sessions_expired", "extensions_loaded"), "{{event}}"),
    ),
    graph(
        "Connections of pages",
        "Connections of Chromium through the proxy that judges and paces them.",
        "short",
        Query(series("gaia_proxy_connections", WORKER), "{{worker}}"),
    ),
    bars(
        "All events",
        "What happened to browsers within the time that is shown.",
        "short",
        total(increase("gaia_browser_events_total", WORKER), "event"),
        "{{event}}",
    ),
]

BOARD = Board(
    "gaia-browser",
    "Gaia / Browser",
    "Captures and sessions: how they go, which browsers and tabs are open, what happens to them.",
    (head("browser", 10), body("browser"), Row("Browsers and tabs", _LIVE), Row("What happens", _EVENTS)),
    choices=(WORKERS, choice("browser")),
)
