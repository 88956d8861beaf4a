"""The commands: `python -m tests.torture race [--calls N]`, `crash [--writes N --kills N]`, `limits [--seconds N]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support import cluster
from tests.torture import crash, limits, race


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("what", choices=["race", "crash", "limits"])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        return {"race": _race, "crash": _crash, "limits": _limits}[options.what](Path(name), options)


def _race(directory: Path, options: argparse.Namespace) -> bool:
    failed = False
    for way in race.WAYS:
        (directory / way).mkdir()
        raced = race.run(directory / way, calls=options.calls, way=way)
        print(f"{way}: {raced}", flush=True)
        failed |= bool(raced.escapes)
    return failed


def _crash(directory: Path, options: argparse.Namespace) -> bool:
    with cluster.valkey(directory / "valkey") as url:
        crashed = crash.run(directory, url, writes=options.writes, kills=options.kills)
    print(crashed)
    return bool(crashed.broken or crashed.left or crashed.failed)


def _limits(directory: Path, options: argparse.Namespace) -> bool:
    for each in ("rate", "probes"):
        (directory / each).mkdir()
    with cluster.valkey(directory / "valkey") as url:
        kept = limits.rate(directory / "rate", url, rate_per_s=400, burst=400, seconds=options.seconds)
    print(f"8 workers at one host, one killed half-way: {kept}", flush=True)
    with cluster.valkey(directory / "valkey-probes") as url:
        probed = limits.probes(directory / "probes", url, open_s=1.0, seconds=options.seconds)
    print(f"8 workers at a host that is down: {probed}", flush=True)
    return not (kept.holds() and probed.holds())


if __name__ == "__main__":
    sys.exit(main())
