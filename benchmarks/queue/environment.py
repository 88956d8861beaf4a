"""What a run stands on: the peers' virtual environments, and a Redis server that keeps nothing on disk."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from tasks.cli.server import find_binary, free_port

ROOT: Final = Path(__file__).parents[2]
START_S: Final = 20.0


def venvs(*names: str) -> None:
    """Make the peers' environments, or make them anew if their locks changed."""
    for name in names:
        lock = ROOT / "benchmarks" / f"requirements{name}.lock"
        home = ROOT / f".venv-bench{name}"
        stamp, digest = home / ".lock", hashlib.sha256(lock.read_bytes()).hexdigest()
        if stamp.exists() and stamp.read_text() == digest:
            continue
        print(f"making {home.name} from {lock.name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
        subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
        stamp.write_text(digest)


def machine() -> dict[str, str]:
    """Say where the figures were taken."""
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [each.partition(":")[2].strip() for each in described.splitlines() if each.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "python": platform.python_version(),
        "server": str(find_binary()),
    }


def versions() -> dict[str, str]:
    """Give the version of each contender."""
    script = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found: dict[str, str] = {}
    for home, names in (
        (".venv-bench-redis5", ("arq", "saq")),
        (".venv-bench", ("dramatiq", "huey", "taskiq", "taskiq-redis")),
        ("", ("celery", "kombu", "redis")),
    ):
        python = str(ROOT / home / "bin" / "python") if home else sys.executable
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
        installed = {name.lower(): version for name, version in json.loads(done.stdout).items()}
        found |= {name: installed[name] for name in names}
    return found


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """Run a server on loopback, nothing persisted; give its URL."""
    binary, port = find_binary(), free_port("127.0.0.1")
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    process = subprocess.Popen([binary.path, *options, "--logfile", str(directory / "server.log")])
    url = f"redis://127.0.0.1:{port}/0"
    try:
        _await_answer(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _await_answer(url: str) -> None:
    ends_at = time.monotonic() + START_S
    with redis.Redis.from_url(url, socket_timeout=1.0, retry=None) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                if time.monotonic() > ends_at:
                    raise
                time.sleep(0.02)
            else:
                return
