"""The token of one endpoint."""

import hashlib
import hmac

from tasks.runtime.tokens import derived


def test_it_is_the_hmac_of_the_endpoint_and_differs_for_each() -> None:
    token, endpoint = "right-token-right", "http://10.0.0.7:9809"
    assert derived(token, endpoint) == hmac.new(token.encode(), endpoint.encode(), hashlib.sha256).hexdigest()
    assert derived(token, endpoint) != derived(token, "http://10.0.0.7:9810")
    assert derived(token, endpoint) != derived("other-token-right", endpoint)
