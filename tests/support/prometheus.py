"""A real Prometheus and a real monitor, with the repository's configuration."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tasks.cli.server import free_port
from tests.support import cluster, debian
from tests.support.cluster import ROOT, get
from tests.support.waiting import until

FOLDER = ROOT / "config" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
MISSING = "NOT CHECKED: this machine has no Prometheus: `python -m tests.support.debian`"


@dataclass(frozen=True)
class Prometheus:
    """A running server, and the address of the monitor that it asks."""

    url: str
    monitor: str

    def ask(self, path: str) -> Any:
        return json.loads(get(f"{self.url}/api/v1/{path}")[1])["data"]

    def values(self, expr: str) -> list[float]:
        return [float(each["value"][1]) for each in self.ask(f"query?query={quote(expr, safe='')}")["result"]]

    def rules(self) -> list[Any]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> list[str]:
        return [each["labels"]["alertname"] for each in self.ask("alerts")["alerts"] if each["state"] == "firing"]


def every_second(text: str) -> str:
    """Scrape and evaluate every second, with the rules as they are."""
    return text.replace("rules/*.yml", f"{FOLDER}/rules/*.yml").replace("15s", "1s").replace("10s", "1s")


@contextmanager
def serve(
    directory: Path,
    redis_url: str,
    *options: str,
    change: Callable[[str], str] = every_second,
    prefix: Sequence[str] = (),
    **environ: str,
) -> Iterator[Prometheus]:
    """Run a monitor of the cluster at `redis_url`, and a Prometheus that scrapes it.

    `change` edits its file; `prefix` stands before both commands, as `cluster.tied()`.

    A test that finds no Prometheus is skipped.
    """
    binary = debian.program("prometheus")
    if binary is None:
        pytest.skip(MISSING)
    pages, port = free_port("127.0.0.1"), free_port("127.0.0.1")
    text = change((FOLDER / "prometheus.yml").read_text().replace("127.0.0.1:9808", f"127.0.0.1:{pages}"))
    (directory / "prometheus.yml").write_text(text)
    url = f"http://127.0.0.1:{port}"
    own = {"GAIA_REDIS_URL": redis_url, "GAIA_MONITOR__PORT": str(pages), "GAIA_MONITOR__PROMETHEUS": url}
    variables = cluster.clean_environ() | own | environ
    monitor = [*prefix, sys.executable, "-P", "-m", "tasks.cli.main", "monitor"]
    server = [
        *prefix,
        *(str(binary), f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", *options),
    ]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (directory / "log").open("wb") as out:
            processes.extend(
                subprocess.Popen(argv, cwd=directory, env=variables, stdout=out, stderr=out)
                for argv in (monitor, server)
            )
        until(lambda: _ready(f"{url}/-/ready"), 60, what="Prometheus")
        yield Prometheus(url, f"http://127.0.0.1:{pages}")
    finally:
        for each in processes:
            cluster.stop(each)


def _ready(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False
