"""The command: `python -m tests.chaos [--tasks N] [--kills N] [--only row,...] [--stock] [--json FILE]`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.field import Account
from tests.chaos.rows import ROWS, Scale
from tests.support.options import whole

COLUMNS = (
    ("fault", lambda each: each.row),
    ("calls", lambda each: each.submitted),
    ("uncertain", lambda each: each.uncertain),
    ("faults", lambda each: each.faults),
    ("**lost**", lambda each: f"**{each.lost}**"),
    ("dead letters", lambda each: each.dead),
    ("no result", lambda each: each.unanswered),
    ("run more than once", lambda each: each.repeated),
    ("extra runs", lambda each: each.extra_starts),
    ("of them ended before", lambda each: each.extra_ends),
    ("late", lambda each: each.late),
    ("slowest, s", lambda each: f"{each.slowest_s:.1f} of {each.bound_s:.0f}"),
    ("took, s", lambda each: f"{each.took_s:.0f}"),
)


def main() -> int:
    options = _options()
    names = options.only.split(",") if options.only else [name for name in ROWS if options.stock or "stock" not in name]
    unknown = set(names) - ROWS.keys()
    if unknown:
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    accounts = []
    for name in names:
        directory = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-"))
        print(f"{name} ... ({directory})", file=sys.stderr, flush=True)
        account = ROWS[name](directory, Scale(options.tasks, options.kills))
        accounts.append(account)
        print(f"  {json.dumps(account.as_json())}", file=sys.stderr, flush=True)
    print(table(accounts))
    if options.json:
        options.json.write_text(json.dumps([each.as_json() for each in accounts], indent=2))
    return int(
        any(each.lost or each.dead or each.unanswered for each in accounts if "stock" not in each.row.split()[-1])
    )


def table(accounts: list[Account]) -> str:
    """Give the table in Markdown."""
    lines = [[name for name, _ in COLUMNS], ["---", *["---:"] * (len(COLUMNS) - 1)]]
    lines += [[str(value(each)) for _, value in COLUMNS] for each in accounts]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=whole, default=20_000, help="calls of the SIGKILL rows; the others take a part")
    parser.add_argument("--kills", type=whole, default=210, help="kills of the SIGKILL rows; the others take a part")
    parser.add_argument("--only", help=f"some rows: {','.join(ROWS)}")
    parser.add_argument("--stock", action="store_true", help="with the same SIGKILL row for stock Celery")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
