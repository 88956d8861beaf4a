"""All dashboards, and their files."""

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from config.grafana import (
    api,
    browser,
    cost,
    delivery,
    limits,
    network,
    overview,
    process,
    slo,
    watching,
    workers,
)
from config.grafana import (
    files as files_,
)
from config.grafana.panels import Board, dashboard

FOLDER: Final = Path(__file__).parent / "dashboards"

BOARDS: Final[tuple[Board, ...]] = (
    overview.BOARD,
    api.BOARD,
    files_.BOARD,
    browser.BOARD,
    process.BOARD,
    network.BOARD,
    delivery.BOARD,
    slo.BOARD,
    limits.BOARD,
    cost.BOARD,
    workers.BOARD,
    watching.BOARD,
)


def files() -> dict[str, str]:
    """Give the name and the text of every dashboard's file."""
    write = JSONEncoder(sort_keys=True, indent=1).encode
    return {f"{each.uid.removeprefix('gaia-')}.json": write(dashboard(each)) + "\n" for each in BOARDS}
