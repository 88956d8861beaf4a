"""Enqueue side effects to a Gaia worker cluster and get typed results back.

    from gaia import Gaia, api

    with Gaia("redis://localhost:6379/0") as g:
        reply = g.submit(api.Request(url="https://example.com/")).get(timeout=10)

Nothing is imported until it is asked for: a worker that needs only the contracts does not pay for the façade.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gaia import errors as errors
    from gaia.client import Gaia as Gaia
    from gaia.codec import Artifact as Artifact
    from gaia.contracts import api as api
    from gaia.contracts import browser as browser
    from gaia.contracts import files as files
    from gaia.contracts import network as network
    from gaia.contracts import process as process
    from gaia.pending import Pending as Pending

_HOMES = {
    "Artifact": ("gaia.codec", "Artifact"),
    "Gaia": ("gaia.client", "Gaia"),
    "Pending": ("gaia.pending", "Pending"),
    "api": ("gaia.contracts.api", None),
    "browser": ("gaia.contracts.browser", None),
    "errors": ("gaia.errors", None),
    "files": ("gaia.contracts.files", None),
    "network": ("gaia.contracts.network", None),
    "process": ("gaia.contracts.process", None),
}

__all__ = ["Artifact", "Gaia", "Pending", "api", "browser", "errors", "files", "network", "process"]


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        message = f"module 'gaia' has no attribute {name!r}"
        raise AttributeError(message) from None
    home = import_module(module)
    return home if attribute is None else getattr(home, attribute)
