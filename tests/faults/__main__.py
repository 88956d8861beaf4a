"""The command: `python -m tests.faults [--factor 20 | --real-time] [--only row,...] [--json FILE]`.

Each row is a cluster of its own; the logs of one that is not as expected are left where it says. It prints the table,
and ends with 1 if an alert that was expected did not fire, if one did not end, if one fired that was not expected, or
if nobody watched. `memory-growth` has one worker grow to 3 GB; `full-disk` mounts a tmpfs, for which it has to be root.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.row import Account, Fired, run
from tests.faults.rows import ROWS
from tests.support.options import positive


def main() -> int:
    options = _options()
    names = options.only.split(",") if options.only else list(ROWS)
    unknown = set(names) - ROWS.keys()
    if unknown:
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    factor = 1.0 if options.real_time else options.factor
    accounts = []
    for name in names:
        directory = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
        print(f"{name} ... ({directory})", file=sys.stderr, flush=True)
        account = run(ROWS[name](), directory, factor)
        accounts.append(account)
        if account.sound:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"  {json.dumps(account.as_json())}", file=sys.stderr, flush=True)
        print(table([account]), file=sys.stderr, flush=True)
    print(table(accounts))
    if options.json:
        options.json.write_text(json.dumps([each.as_json() for each in accounts], indent=2))
    return int(not all(each.sound for each in accounts))


COLUMNS = ("fault", "fires, after", "ends, after", "comes along", "silent", "verdict")


def table(accounts: list[Account]) -> str:
    """Give the table in Markdown."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for each in accounts:
        expected = {name: fired for name, fired in each.fired.items() if fired.expected}
        others = {name: fired for name, fired in each.fired.items() if not fired.expected}
        ends = [f"{_short(name)} {_ended(fired.ended_s)}" for name, fired in expected.items()]
        cells = [_named(expected), ", ".join(ends) or "-", _named(others), str(each.silent), _verdict(each)]
        lines.append([each.what, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _named(fired: dict[str, Fired]) -> str:
    return ", ".join(f"{_short(name)} {_span(each.after_s)}" for name, each in fired.items()) or "-"


def _verdict(account: Account) -> str:
    if account.not_run:
        return f"NOT RUN: {account.not_run}"
    unwatched = f"{account.calls} calls, {account.ended_well} ended well, {account.looks} of {account.due_looks} looks"
    parts = [
        *([] if account.watched or account.error else [f"NOT WATCHED: {unwatched}"]),
        *(f"MISSING: {_short(each)}" for each in account.missing),
        *(f"UNEXPECTED: {_short(each)}" for each in account.unexpected),
        *(f"DID NOT END: {_short(each)}" for each in account.lasting),
        *([f"FAILED: {account.error}"] if account.error else []),
    ]
    if account.starved:
        names = ", ".join(map(_short, account.starved))
        parts.append(f"{names}: of a machine that let a look at the alerts take {account.stalled_s:.1f} s")
    return ("" if not account.sound else "as expected" + ("; " if parts else "")) + "; ".join(parts)


def _short(name: str) -> str:
    return name.removeprefix("Gaia")


def _ended(seconds: float | None) -> str:
    if seconds is None:
        return "not within the run"
    return _span(seconds) if seconds else "before the fault did"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--factor", type=positive, default=20.0, help="what the times of the rules are divided by")
    parser.add_argument("--real-time", action="store_true", help="the rules as they are committed")
    parser.add_argument("--only", help=f"some rows: {','.join(ROWS)}")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
