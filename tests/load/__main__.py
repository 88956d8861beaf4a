"""The command: `python -m tests.load [--rounds N] [--pages navigate] [--share 0.1]`.

Each round starts a cluster that has done nothing yet, has the thousand operations in flight at once (cold: no Chromium
runs, no connection is open, no name is known), has them so once more (warm), then each part alone through the queue,
then the same work without queue and worker; all of it with pages captured, then with pages navigated to. Medians of the
rounds; what is compared is of the same run.
"""

import argparse
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.load import parts, stress
from tests.load.parts import World
from tests.load.stress import Took
from tests.support.options import positive, whole

AIM_S = 3.76
"""What the original took for a thousand calls that did nothing."""

Found = dict[tuple[str, str], list[Took]]
"""What was run (`cold`, `warm`, `alone`, `bare`), with which part or all, and what each round took."""


WAYS = ("capture", "navigate")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--rounds", type=whole, default=3)
    parser.add_argument(
        "--pages", choices=WAYS,
        help="each in a tab that is cleaned after it, and its text; or in tabs of sessions that stay, and its title",
    )  # fmt: skip
    parser.add_argument("--share", type=positive, default=1.0, help="of the mix, for a trial")
    options = parser.parse_args()
    mix, wrong = parts.shared(options.share), 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left
    print(f"{stress.cores()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}", flush=True)
    for pages in (options.pages,) if options.pages else WAYS:
        found = rounds(options.rounds, mix, in_tabs=pages == "navigate")
        wrong += sum(each.asked - each.right for takes in found.values() for each in takes)
        print(f"\nPages: {pages}\n{table(found, mix)}", flush=True)
    return int(wrong > 0)


def rounds(count: int, mix: Mapping[str, int], *, in_tabs: bool) -> Found:
    """Run so many rounds on servers of their own."""
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        Path(name).chmod(0o711)
        with stress.world(Path(name)) as given:
            parts.bare("browser", parts.operations("browser", given, "start", 8))
            for number in range(count):
                one_round(Path(name), given, number, mix, found, in_tabs=in_tabs)
                print(f"round {number + 1}: {told(found)}", file=sys.stderr, flush=True)
    return found


def one_round(folder: Path, given: World, number: int, mix: Mapping[str, int], found: Found, *, in_tabs: bool) -> None:
    """Run everything once."""
    given.tabs.pop(parts.QUEUED, None)
    with stress.workers(folder / f"cluster{number}", given, *stress.EACH_ITS_OWN) as url:
        for way in ("cold", "warm"):
            found[way, "all"].append(stress.combined(url, given, f"{way}{number}", mix, in_tabs=in_tabs))
        for part, count in mix.items():
            found["alone", part].append(stress.combined(url, given, f"alone{number}", {part: count}))
    for part, count in mix.items():
        operations = parts.operations(part, given, f"bare{number}", count)
        found["bare", part].append(stress.bare(part, operations))


def told(found: Found) -> str:
    cold, warm = found["cold", "all"][-1], found["warm", "all"][-1]
    return f"cold {cold.wall_s:.2f} s, warm {warm.wall_s:.2f} s, load {os.getloadavg()[0]:.1f}"


def table(found: Found, mix: Mapping[str, int]) -> str:
    """Give the tables in Markdown."""
    lines = [
        "",
        "| | operations | cold, s | warm, s | alone, s | bare, s | CPU s alone | CPU s bare |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for part, count in mix.items():
        ends = [middle(each.ended_s[part] for each in found[way, "all"]) for way in ("cold", "warm")]
        walls = [middle(each.wall_s for each in found[way, part]) for way in ("alone", "bare")]
        used = [middle(each.cpu_s for each in found[way, part]) for way in ("alone", "bare")]
        lines.append(row(part, count, *ends, *walls, *used))
    sums = [
        sum(middle(getattr(each, name) for each in found[way, part]) for part in mix)
        for name in ("wall_s", "cpu_s")
        for way in ("alone", "bare")
    ]
    walls = [middle(each.wall_s for each in found[way, "all"]) for way in ("cold", "warm")]
    lines += [row("**all at once**; alone and bare: the sum", sum(mix.values()), *walls, *sums), ""]
    return "\n".join([*lines, *(sentence(way, found[way, "all"]) for way in ("cold", "warm"))])


def row(name: str, count: int, *figures: float) -> str:
    return f"| {name} | {count} | {' | '.join(f'{each:.2f}' for each in figures)} |"


def sentence(way: str, takes: list[Took]) -> str:
    """Say of one way what the table has no room for."""
    walls = sorted(each.wall_s for each in takes)
    used = middle(each.cpu_s for each in takes)
    right, asked = (sum(getattr(each, name) for each in takes) for name in ("right", "asked"))
    return (
        f"{way}: {middle(walls):.2f} s ({walls[0]:.2f} to {walls[-1]:.2f}), aim {AIM_S}; {right} of {asked} right; "
        f"in flight at once {min(each.in_flight for each in takes)} at least; CPU {used:.2f} s, so no less than "
        f"{used / stress.cores():.2f} s on {stress.cores()} cores"
    )


def middle(figures: Iterable[float]) -> float:
    return statistics.median(figures)


if __name__ == "__main__":
    sys.exit(main())
