"""The command: `python -m tests.soak [--minutes N] [--only queue,...] [--rate N] [--leak kind,...] [--all]`."""

import argparse
import math
import sys
from typing import get_args

from tests.soak import leaks, scenes
from tests.soak.judgement import Row
from tests.soak.run import QUEUES, Verdict, soaking
from tests.support.options import positive

KINDS = get_args(leaks.Kind)
PAUSE_S = 5.0
KILLS = 20
"""Of the browsers, in a phase of their own after the steady one."""


def main() -> int:
    options = _options()
    queues = options.only.split(",") if options.only else QUEUES
    kinds = tuple(options.leak.split(","))
    asked = [(each.partition(".")[0], QUEUES) for each in queues] + [(each, KINDS) for each in kinds]
    for name, known in asked:
        if name not in known:
            sys.exit(f"no such thing: {name}; there are {', '.join(known)}")
    with soaking(queues, options.rate) as soak:
        print(f"warm-up ... ({soak.field.directory})", file=sys.stderr, flush=True)
        soak.warm_up()
        soak.load.choose({**soak.load.decks, leaks.QUEUE: leaks.deck(kinds)})
        print(f"{options.minutes:g} minutes ...", file=sys.stderr, flush=True)
        verdicts = [soak.steady(options.minutes * 60, min(PAUSE_S, options.minutes))]
        if "browser" in soak.load.decks:
            print(f"{KILLS} times the browsers are killed ...", file=sys.stderr, flush=True)
            soak.load.choose(scenes.killing(soak.field.scenery, soak.field.kill_browsers))
            verdicts.append(soak.steady(0, 1.0, rounds={"browser": KILLS}))
    clean = [shown(each, everything=options.all) for each in verdicts]
    return int(not all(clean))


def shown(verdict: Verdict, *, everything: bool) -> bool:
    """Print what came of a phase; say whether it was clean."""
    print(table([each for each in verdict.rows if everything or each.grown or each.slope]))
    print(f"\n{sum(verdict.calls.values())} calls in {verdict.minutes:.1f} minutes: {verdict.calls}")
    for each in verdict.failures:
        print(f"FAILED {each}")
    for row in verdict.leaks:
        print(f"LEAK {row}")
    if verdict.restarted:
        print("RESTARTED: a process of the cluster is not the one it was")
    return not (verdict.leaks or verdict.failures or verdict.restarted)


def table(rows: list[Row]) -> str:
    """Give the table in Markdown."""
    lines = [
        "| quantity | before | after | per 1000 calls | slope under load, per 1000 | seen from | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for each in rows:
        slope = f"{each.slope.low:+,.1f} to {each.slope.high:+,.1f}" if each.slope else ""
        sees = each.bound.sees(each.calls)
        lines.append(
            f"| {each.quantity} | {each.before:,.0f} | {each.after:,.0f} | {each.per_1000:+,.1f} | {slope} | "
            f"{f'{sees:,.0f}' if sees < math.inf else ''} | {'**LEAK**' if each.leaks else ''} |"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=positive, default=30.0, help="of the steady phase; the warm-up comes before it"
    )
    parser.add_argument("--only", help=f"load some queues alone, or scenes, as api.downloads: {','.join(QUEUES)}")
    parser.add_argument("--rate", type=positive, default=1.0, help="times the calls a second")
    parser.add_argument("--leak", default="nothing", help=f"have a worker leak: {','.join(KINDS)}")
    parser.add_argument("--all", action="store_true", help="show what did not move, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
