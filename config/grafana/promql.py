"""Pieces of PromQL that the panels have in common. Every piece is text."""

from typing import Final

WORKER: Final = 'worker=~"$worker"'
"""Of the workers that are chosen above the dashboard."""

INTERVAL: Final = "$__rate_interval"


def series(name: str, *labels: str) -> str:
    """Select the series of a name."""
    return f"{name}{{{', '.join(labels)}}}" if labels else name


def rate(name: str, *labels: str) -> str:
    """Give how fast counters rise a second."""
    return f"rate({series(name, *labels)}[{INTERVAL}])"


def increase(name: str, *labels: str) -> str:
    """Give by how much counters have risen within the time that is shown."""
    return f"increase({series(name, *labels)}[$__range])"


def total(expr: str, *by: str) -> str:
    """Add up, by some labels."""
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def quantile(share: float, histogram: str, *labels: str, by: tuple[str, ...] = ()) -> str:
    """Estimate a quantile of a histogram, by some labels."""
    return f"histogram_quantile({share:g}, {total(rate(f'{histogram}_bucket', *labels), 'le', *by)})"


def mean(histogram: str, *labels: str, by: tuple[str, ...] = ()) -> str:
    """Give the mean of what a histogram counted."""
    return share(total(rate(f"{histogram}_sum", *labels), *by), total(rate(f"{histogram}_count", *labels), *by))


def share(part: str, whole: str) -> str:
    """Divide; of nothing there is no share."""
    return f"{part} / ({whole} > 0)"


def or_zero(expr: str) -> str:
    """Give 0 where there is nothing: for what is not there as long as all is well."""
    return f"({expr}) or on () vector(0)"
