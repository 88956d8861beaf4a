"""The wait for content of the lists, which takes nothing off them, so that nothing can be lost in it.

The server is asked to remember the lists and to say at once if one has content (`EXISTS` under client tracking with
OPTIN, one send); at the first write to any it pushes one word. A server that refuses tracking is waited on by moving
the last message of a list onto itself, which blocks and changes nothing.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

log = logging.getLogger(__name__)

FALLBACK_WAIT_S: Final = 0.05


class Wait:
    """The wait of one connection at a time; a new socket is a new session of the server."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._tracked: Any = None
        self._is_tracking = True
        self._is_pushed = False
        self._fruitless = False

    def track(self, connection: Any) -> bool:
        """Switch tracking on, once a socket; False if the server refuses it."""
        if self._is_tracking and self._tracked is not connection._sock:  # noqa: SLF001 - a socket is a session
            try:
                connection.send_command("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
                connection.read_response()
                connection._parser.set_invalidation_push_handler(self._on_push)  # noqa: SLF001 - no public way
                self._tracked = connection._sock  # noqa: SLF001 - as above
            except ResponseError:
                self._refused()
        return self._is_tracking

    def _refused(self) -> None:
        log.info("the server refuses client tracking; waiting by BLMOVE")
        self._is_tracking = False

    def _on_push(self, _: Any) -> str:
        self._is_pushed = True
        return "pushed"

    def arm(self, connection: Any, lists: Sequence[str], paused: str) -> None:
        """Send what asks for the wait. `paused` is the key of what is paused, which is waited for, too."""
        self._is_pushed = False
        if not self.track(connection):
            first = lists[0] if lists else paused
            connection.send_command("BLMOVE", first, first, "RIGHT", "RIGHT", FALLBACK_WAIT_S)
            return
        connection.send_packed_command(
            connection.pack_commands([("CLIENT", "CACHING", "YES"), ("EXISTS", paused, *lists)]), check_health=False
        )

    def read_armed(self, connection: Any, *, is_any_paused: bool) -> bool:
        """Read the answer; False if the lists are to be looked at again.

        Raises:
            ResponseError: if the server refuses the look; both answers were read then.
        """
        if not self._is_tracking:
            connection.read_response()
            return False
        try:
            connection.read_response()
        except ResponseError:
            connection.read_response()
            self._refused()
            return False
        present = connection.read_response() > is_any_paused
        # Content that a turn does not take, of a key that is no list for one, is looked at again once, then waited on.
        is_news = self._is_pushed or (present and not self._fruitless)
        self._fruitless = bool(present)
        return not is_news

    def found(self) -> None:
        """Say that a turn took something."""
        self._fruitless = False

    def has_push(self, connection: Any) -> bool:
        """Say whether the push lies in the parser's buffer already, where the loop's poll cannot see it."""
        return bool(connection._parser._reader.has_data())  # noqa: SLF001 - hiredis is a declared dependency

    def read_push(self, connection: Any) -> None:
        """Read the push that ends the wait."""
        connection.read_response(push_request=True)
