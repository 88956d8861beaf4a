"""A steady small load over the queues of a cluster, from one thread."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gaia import Gaia, api, browser, files, network, process
from gaia.contracts.base import Call
from gaia.errors import GaiaError
from tests.faults.background import Background
from tests.support.probe import Echo

ROUND_S: Final = 0.5
DEADLINE_S: Final = 300.0
TRUE: Final = str(Path("/bin/true").resolve())
STEADY: Final = "data:steady"
"""A file that is there from the beginning."""
NAMES: Final = ("localhost", "127.0.0.1")


class Load(Background):
    """Calls once a round, of each queue that is served; browser pages and programs less often. Nobody reads results."""

    def __init__(self, url: str, site: str, queues: Sequence[str]) -> None:
        super().__init__("load")
        self._gaia = Gaia(url)
        self._site, self._queues = site, queues
        self.submitted = 0

    def __exit__(self, *of: object) -> None:
        super().__exit__(*of)
        self._gaia.close()

    def _run(self) -> None:
        for number in itertools.count():
            for each in self._calls(number):
                # Redis may be away: that is one of the faults.
                with suppress(GaiaError):
                    self._gaia.submit(each, deadline=DEADLINE_S)
                    self.submitted += 1
            if self._closed.wait(ROUND_S):
                return

    def _calls(self, number: int) -> list[Call[Any]]:
        calls: dict[str, list[Call[Any]]] = {
            "api": [api.Request(self._site)],
            "files": [files.Write(f"data:load/{number % 50}", b"x" * 1000, durable=False), files.Stat(STEADY)],
            "network": [network.Resolve(NAMES[number % 2])],
            "process": [process.Run((TRUE,))] if number % 2 == 0 else [],
            "browser": [browser.Capture(html="<p>load</p>", formats=("text",))] if number % 8 == 0 else [],
            "probe": [Echo("load")],
        }
        return [each for queue in self._queues for each in calls[queue]]
