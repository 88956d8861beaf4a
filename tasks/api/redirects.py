"""Where an answer leads on, for each way in which a request is sent."""

from requests.cookies import RequestsCookieJar

from gaia.errors import TooManyRedirects
from tasks.api.incoming import Answer, keep_cookies
from tasks.api.outgoing import Outgoing, following, with_cookies
from tasks.api.tally import Tally


class Redirects:
    """The redirects of one attempt, and the cookies that servers set on the way. For one thread."""

    def __init__(self, most: int, tally: Tally) -> None:
        """Follow up to so many; with 0 a redirect is the answer."""
        self._most = most
        self._tally = tally
        # Made by the first redirect: most requests have none, and a jar costs as much as the rest of preparing one.
        self._jar: RequestsCookieJar | None = None
        self.hops = 0

    def fields(self, sent: Outgoing) -> dict[str, str]:
        """Give the header fields of a request, with the cookies that were set."""
        return sent.headers if self._jar is None else with_cookies(sent, self._jar)

    def leads_on(self, answer: Answer) -> bool:
        """Say whether an answer is a redirect that is to be followed."""
        return self._most > 0 and answer.location() is not None

    def following(self, sent: Outgoing, answer: Answer) -> Outgoing | None:
        """Give the request that an answer asks for, None if it is no redirect.

        Raises:
            TooManyRedirects: if it is one too many.
            BadReply: if it leads to no http or https URL.
        """
        location = answer.location() if self._most else None
        if location is None:
            return None
        if self.hops >= self._most:
            raise TooManyRedirects(sent.host, self._most)
        self._jar = self._jar or RequestsCookieJar()
        keep_cookies(self._jar, sent, answer)
        hop = following(sent, answer.status, location)
        self.hops += 1
        self._tally.count("redirected")
        return hop
