"""The command: `python -m tests.torture WHAT`.

WHAT is `race [--calls N]`, `crash [--writes N] [--kills N]`, `processes [--rounds N]` or `limits [--seconds N]`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support import cluster
from tests.support.options import positive, whole
from tests.torture import crash, limits, processes, race
from tests.unit.process.modes import MODES, identify, permitted


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("what", choices=["race", "crash", "processes", "limits"])
    parser.add_argument("--calls", type=whole, default=100_000)
    parser.add_argument("--writes", type=whole, default=500)
    parser.add_argument("--kills", type=whole, default=20)
    parser.add_argument("--rounds", type=whole, default=3)
    parser.add_argument("--seconds", type=positive, default=10.0)
    options = parser.parse_args()
    acts: dict[str, Callable[[argparse.Namespace], bool]] = {
        "race": _race,
        "crash": _crash,
        "processes": _processes,
        "limits": _limits,
    }
    return acts[options.what](options)


def _race(options: argparse.Namespace) -> bool:
    failed = False
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        for way in race.WAYS:
            (Path(name) / way).mkdir()
            raced = race.run(Path(name) / way, calls=options.calls, way=way)
            print(f"{way}: {raced}", flush=True)
            failed |= bool(raced.escapes)
    return failed


def _crash(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="torture-") as name, cluster.valkey(Path(name) / "valkey") as url:
        crashed = crash.run(Path(name), url, writes=options.writes, kills=options.kills)
    print(crashed)
    return bool(crashed.broken or crashed.left or crashed.failed)


def _limits(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        directory = Path(name)
        with cluster.valkey(directory / "valkey") as url:
            kept = limits.rate(directory, url, rate_per_s=400, burst=400, seconds=options.seconds)
        print(f"8 workers at one host, one killed half-way: {kept}", flush=True)
        with cluster.valkey(directory / "valkey-probes") as url:
            probed = limits.probes(directory, url, open_s=1.0, seconds=options.seconds)
        print(f"8 workers at a host that is down: {probed}", flush=True)
    return not (kept.holds() and probed.holds())


def _processes(options: argparse.Namespace) -> bool:
    """Run the set in each mode, round after round; the last line counts."""
    runs = unsound = survivors = 0

    def told(outcome: processes.Outcome) -> None:
        nonlocal runs, survivors
        runs, survivors = runs + 1, survivors + outcome.survivors
        verdict = "ok" if outcome.sound else "WRONG"
        print(
            f"{outcome.mode:18} {outcome.case:30} {outcome.reason:10} survivors {outcome.survivors} "
            f"{outcome.took_s:6.2f} s  {verdict}",
            flush=True,
        )

    for number in range(options.rounds):
        for mode in MODES:
            if permitted(mode):
                try:
                    unsound += processes.every(mode, identify(mode), told)
                except processes.NoFence:
                    print("NOT RUN: the storms: no control group (v1, pids) can be had to fence them in")
                    return True
            elif number == 0:
                print(
                    f"{identify(mode):18} NOT RUN: the kernel of this machine ({os.uname().release}) does not permit it"
                )
    print(f"{runs} runs, {survivors} survivors, {unsound} that ended otherwise than they should")
    return bool(unsound)


if __name__ == "__main__":
    sys.exit(main())
