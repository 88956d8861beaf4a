"""URLs read in one way only."""

from hypothesis import given
from hypothesis import strategies as st

from gaia.contracts import api
from tasks.api import outgoing

HOSTS = st.sampled_from(["a", "a.example", "127.0.0.1", "x-y.test", "a1.b2.c3"])
PORTS = st.sampled_from(["", ":80", ":443", ":8080", ":1"])
TEXT = st.text("abcXYZ019._~!$&'()*+,;=:@-", max_size=12)
PATHS = st.lists(TEXT, max_size=4).map(lambda parts: "".join(f"/{each}" for each in parts))
QUERIES = st.one_of(
    st.just(""), st.text("aB1._~!$&'()*+,;=:@/?-", min_size=1, max_size=12).map(lambda text: f"?{text}")
)


@given(st.sampled_from(["http", "https"]), HOSTS, PORTS, PATHS, QUERIES)
def test_what_passes_requests_by_is_what_it_makes(scheme: str, host: str, port: str, path: str, query: str) -> None:
    url = f"{scheme}://{host}{port}{path}{query}"
    if outgoing._PLAIN.fullmatch(url):
        assert outgoing._address(api.Request(url=url)) == outgoing._prepared(url)
