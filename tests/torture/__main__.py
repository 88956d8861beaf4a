"""The command: `python -m tests.torture race [--calls N]`, `python -m tests.torture crash [--writes N] [--kills N]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support import cluster
from tests.torture import crash, race


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("what", choices=["race", "crash"])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        directory = Path(name)
        if options.what == "crash":
            with cluster.valkey(directory / "valkey") as url:
                crashed = crash.run(directory, url, writes=options.writes, kills=options.kills)
            print(crashed)
            return bool(crashed.broken or crashed.left or crashed.failed)
        failed = False
        for way in race.WAYS:
            (directory / way).mkdir()
            raced = race.run(directory / way, calls=options.calls, way=way)
            print(f"{way}: {raced}", flush=True)
            failed |= bool(raced.escapes)
        return failed


if __name__ == "__main__":
    sys.exit(main())
