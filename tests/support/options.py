"""Options of the commands among the tests."""

from argparse import ArgumentTypeError
from math import isfinite


def whole(text: str) -> int:
    """Read a whole number from 1 on.

    Raises:
        ArgumentTypeError: if it is none; argparse says it beside the option's name.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def positive(text: str) -> float:
    """Read a number above 0; raise as `whole`."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not (isfinite(found) and found > 0):
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return found
