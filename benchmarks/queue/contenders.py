"""Who is measured: the environment, the worker's command, and the rows that apply."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).with_name("peers")
THREADS: Final = 16
"""Of every worker with a thread pool. Asynchronous ones have their own default, arq excepted (see its module)."""


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    script: str
    """Its module in `peers`."""
    worker: tuple[str, ...]
    """Arguments of the Python that runs its worker."""
    venv: str | None = None
    """The lock file's name without `requirements`; None is the environment of Gaia itself."""
    environ: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False

    def python(self, root: Path) -> str:
        """Give its Python."""
        return sys.executable if self.venv is None else str(root / f".venv-bench{self.venv}" / "bin" / "python")


def _celery(app: str, *options: str) -> tuple[str, ...]:
    return ("-m", "celery", "-A", app, "worker", "-P", "threads", "-c", str(THREADS), *options)


CONTENDERS: Final = (
    Contender("Celery", "with_celery", _celery("with_celery")),
    Contender(
        "Celery on Gaia's transport", "with_celery", _celery("with_celery"), environ={"BENCH_ENGINE": "1"}, is_ours=True
    ),
    Contender("Gaia", "with_gaia", ("-c", "import with_gaia; with_gaia.work()"), is_ours=True),
    Contender(
        "dramatiq",
        "with_dramatiq",
        ("-m", "dramatiq", "with_dramatiq", "--processes", "1", "--threads", str(THREADS)),
        venv="",
    ),
    Contender(
        "huey",
        "with_huey",
        ("-m", "huey.bin.huey_consumer", "with_huey.huey", "-w", str(THREADS), "-k", "thread", "-q", "-g", "TERM"),
        venv="",
    ),
    Contender(
        "taskiq",
        "with_taskiq",
        ("-m", "taskiq", "worker", "with_taskiq:broker", "--workers", "1", "--log-level", "WARNING"),
        venv="",
    ),
    Contender(
        "taskiq, stream",
        "with_taskiq",
        ("-m", "taskiq", "worker", "with_taskiq:broker", "--workers", "1", "--log-level", "WARNING"),
        venv="",
        environ={"BENCH_STREAM": "1"},
    ),
    Contender(
        "arq",
        "with_arq",
        ("-m", "arq", "with_arq.WorkerSettings", "--custom-log-dict", "with_arq.QUIET"),
        venv="-redis5",
    ),
    Contender("SAQ", "with_saq", ("-m", "saq", "with_saq.settings"), venv="-redis5"),
)
