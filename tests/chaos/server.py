"""A Valkey server that may be killed and comes back on the same port with its append-only file."""

import random
import subprocess
from pathlib import Path
from typing import Self

import redis

from tasks.cli.server import find_binary, is_free
from tests.support.cluster import stop
from tests.support.waiting import until

HOST = "127.0.0.1"

# Below the kernel's range for outgoing connections (net.ipv4.ip_local_port_range starts at 32768): while the server is
# away, a client that dials a port of that range may be given the very port and be connected to itself.
PORTS = range(20_000, 32_000)


class Server:
    """One server; its data outlives its process."""

    def __init__(self, directory: Path, appendfsync: str = "always") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = next(port for port in random.sample(PORTS, len(PORTS)) if is_free(HOST, port))
        self.url = f"redis://{HOST}:{self.port}/0"
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(directory),
            "logfile": str(directory / "server.log"),
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "save": "",
        }
        self._argv = [
            str(find_binary().path),
            *(part for key, value in options.items() for part in (f"--{key}", value)),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis.from_url(self.url, socket_timeout=10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process is not None:
            stop(self.process)

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv)
        until(self._answers, what="the server's answer")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def shut_down(self) -> None:
        assert self.process is not None
        stop(self.process)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server ended"
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False
