"""What a run stands on: the peers' virtual environments, and a Redis server that keeps nothing on disk."""

import hashlib
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


def venvs() -> None:
    """Make the peers' environments, or make them anew if their locks changed."""
    for name in ("", "-redis5"):
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
