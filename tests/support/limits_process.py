"""One process that asks a cluster's limits without pause, and writes down what it was given.

`python -m tests.support.limits_process rate URL FILE SECONDS` writes, in binary, the monotonic time before it first
asked and that of each admission; `... probes URL FILE SECONDS` calls an upstream that is dead, and writes a line a
call. All processes of a machine have the same monotonic time.
"""

import struct
import sys
import threading
import time
from pathlib import Path

from config import settings
from gaia.errors import CircuitOpen
from tasks.limits.cluster import Limits
from tasks.limits.policy import levels
from tasks.limits.protocols import Admitted, Away

HOST = "api.example.com"
DOUBLE = struct.Struct("<d")
pause = threading.Event()


def rate(limits: Limits, file: Path, ends_at: float) -> None:
    names = levels(host=HOST)
    with file.open("ab", buffering=0) as output:
        output.write(DOUBLE.pack(time.monotonic()))
        while time.monotonic() < ends_at:
            found = limits.ask(names, if_away=Away.FAIL_CLOSED)
            if isinstance(found, Admitted):
                pause.wait(found.wait_s)
                output.write(DOUBLE.pack(time.monotonic()))
            else:
                pause.wait(found.retry_after_s)


def probes(limits: Limits, file: Path, ends_at: float) -> None:
    with file.open("ab", buffering=0) as output:
        while time.monotonic() < ends_at:
            try:
                passage = limits.enter(HOST, if_away=Away.FAIL_CLOSED)
            except CircuitOpen as error:
                pause.wait(min(error.retry_after_s, 0.01))
                continue
            output.write(f"{time.time():.6f} {passage.probe}\n".encode())
            limits.failed(passage)


def main() -> None:
    verb, url, file, seconds = sys.argv[1:]
    limits = Limits.in_redis(url, settings.Limits())
    try:
        {"rate": rate, "probes": probes}[verb](limits, Path(file), time.monotonic() + float(seconds))
    finally:
        limits.close()


if __name__ == "__main__":
    main()
