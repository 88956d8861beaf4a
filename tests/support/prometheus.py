"""A real Prometheus with the repository's configuration, and the monitor by which it finds the workers."""

import json
import subprocess
import sys
from collections.abc import Iterator
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


@dataclass(frozen=True)
class Prometheus:
    """A running server, and the address of the monitor that it asks."""

    url: str
    monitor: str

    def ask(self, path: str) -> Any:
        return json.loads(get(f"{self.url}/api/v1/{path}")[1])["data"]

    def values(self, expr: str) -> list[float]:
        return [float(each["value"][1]) for each in self.ask(f"query?query={quote(expr, safe='')}")["result"]]


@contextmanager
def running(folder: Path, redis_url: str, **environ: str) -> Iterator[Prometheus]:
    """Run both, with everything that lasts 15 s lasting one; skip where there is no Prometheus."""
    binary = debian.program("prometheus")
    if binary is None:
        pytest.skip("NOT CHECKED: this machine has no Prometheus: `python -m tests.support.debian`")
    pages, port = free_port("127.0.0.1"), free_port("127.0.0.1")
    text = (FOLDER / "prometheus.yml").read_text().replace("127.0.0.1:9808", f"127.0.0.1:{pages}")
    text = text.replace("rules/*.yml", f"{FOLDER}/rules/*.yml").replace("15s", "1s").replace("10s", "1s")
    (folder / "prometheus.yml").write_text(text)
    url = f"http://127.0.0.1:{port}"
    own = {"GAIA_REDIS_URL": redis_url, "GAIA_MONITOR__PORT": str(pages), "GAIA_MONITOR__PROMETHEUS": url}
    served = [
        *(str(binary), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as out:
        processes = [
            subprocess.Popen(argv, cwd=folder, env=cluster.clean_environ() | own | environ, stdout=out, stderr=out)
            for argv in ([sys.executable, "-P", "-m", "tasks.cli.main", "monitor"], served)
        ]
    try:
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
