"""Errors as a part of a result."""

from gaia.contracts.files import Fault
from gaia.errors import GaiaError


def fault(error: GaiaError) -> Fault:
    """Give an error as a batch tells of it."""
    return Fault(type(error).__name__, error.args)
