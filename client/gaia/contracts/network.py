"""Calls of the `network` queue: names and reachability."""

from typing import Literal

from gaia.contracts.base import Call, Result, RetryPolicy, contract

NAME_LIMIT = 253
"""RFC 1035 section 2.3.4: 255 octets on the wire."""


@contract
class Resolved(Result):
    """The addresses of a name, in the order of the answer.

    `ttl_s` is how long the answer may still be kept. `cached` tells that no server was asked this time.
    """

    name: str
    type: str
    addresses: tuple[str, ...]
    ttl_s: float
    cached: bool


@contract
class Resolve(Call[Resolved], operation="network.resolve"):
    """Look a name up: the worker's hosts file first, then its name servers."""

    RETRY = RetryPolicy(attempts=3)

    name: str
    type: Literal["A", "AAAA"] = "A"
    timeout_s: float = 5.0

    def check(self) -> None:
        """Check the name and the bound."""
        self.require_text("name", limit=NAME_LIMIT, forbidden=("\0", " ", "/", "\n", "\r"))
        self.require_between("timeout_s", 0.001, 60)
