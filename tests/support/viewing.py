"""The monitor's page in a session of our own browser: many dashboards, one Chromium."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from gaia import Gaia, browser
from tests.support import cluster

SHOWN = "body[data-state=shown]"


@dataclass(frozen=True)
class Viewer:
    """A session that looks at one page."""

    g: Gaia
    session: str
    page: str

    def go(self, **fields: str) -> None:
        """Show a dashboard and wait until all its panels have their answer."""
        call = browser.Navigate(self.session, f"{self.page}#{urlencode(fields)}", wait_for=SHOWN)
        self.g.submit(call).get(timeout=60)

    def value(self, expression: str) -> Any:
        return self.g.submit(browser.Evaluate(self.session, expression)).get(timeout=60).value

    def states(self) -> Counter[str]:
        """Count the panels by what became of them."""
        return Counter(self.value("[...document.querySelectorAll('section.panel')].map((each) => each.dataset.state)"))


@contextmanager
def viewing(page: str, url: str, folder: Path) -> Iterator[Viewer]:
    """Open a session on a page, in a browser worker of the server at `url`."""
    own = {"GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{urlsplit(page).port}"])}
    with cluster.worker(url, "browser", log=folder / "viewer", **own) as _, Gaia(url) as g:
        session = g.submit(browser.Open()).get(timeout=60)
        yield Viewer(g, session.id, page)
