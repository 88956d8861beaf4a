"""The token that is good at one endpoint alone.

Where the pages of a worker are is told by Redis, and whoever can write to it can tell of a place of his own. So a
monitor sends there what is of use nowhere else, and not the cluster's token.
"""

import hmac


def derived(token: str, endpoint: str) -> str:
    """Give the token for an endpoint, exactly as the worker's heartbeat tells it."""
    return hmac.digest(token.encode(), endpoint.encode(), "sha256").hex()
