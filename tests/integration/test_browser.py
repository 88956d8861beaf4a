"""Browser sessions through the queue: their calls find them, and nothing survives their worker."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gaia import Gaia, browser
from gaia.errors import EgressDenied, HolderLost, PageTimedOut, SessionMissing, picture_of
from tests.support.cluster import worker
from tests.support.waiting import until
from tests.support.web import Site, reply

HTML = "Content-Type: text/html"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where profiles go; it is left empty."""
    found = Path(tempfile.mkdtemp())
    found.chmod(0o711)
    yield found
    found.rmdir()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as found:
        found.routes["/"] = reply(b"<title>There</title><p>x", 200, HTML)
        yield found


def of_profile(folder: Path) -> list[int]:
    """Give the processes that know of a profile in the folder."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in each.cmdline()):
                found.append(each.pid)
        except psutil.Error:
            continue
    return found


def test_a_session_is_found_by_its_calls_and_ends_with_its_worker(
    fresh_url: str, folder: Path, site: Site, tmp_path: Path
) -> None:
    variables = {"TMPDIR": str(folder), "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"])}
    # Another worker answers what lies on the queue of one that has gone.
    with worker(fresh_url, "network", log=tmp_path / "other.log"), Gaia(fresh_url) as gaia:
        for ending in (signal.SIGKILL, signal.SIGTERM):
            log = tmp_path / f"{ending.name}.log"
            with worker(fresh_url, "browser", log=log, **variables) as running:
                session = gaia.submit(browser.Open()).get(timeout=60).id
                seen = gaia.submit(browser.Navigate(session, site.url())).get(timeout=60)
                assert (seen.title, seen.status) == ("There", 200)
                with pytest.raises(PageTimedOut) as late:
                    gaia.submit(browser.Navigate(session, site.url(), wait_for="#no", timeout_s=1)).get(timeout=60)
                picture = picture_of(late.value)
                assert picture is not None
                with gaia.open(picture) as file:
                    assert file.read(3) == b"\xff\xd8\xff"
                assert of_profile(folder)
                os.kill(running.process.pid, ending)
                until(lambda: not of_profile(folder), 5 if ending == signal.SIGKILL else 30, what="Chromium's end")
                until(lambda: not list(folder.iterdir()), what="the end of its profile")
                running.process.wait(30)
            with pytest.raises(HolderLost):
                gaia.submit(browser.Status(session)).get(timeout=60)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8081/", "http://169.254.169.254/", "http://localhost/"])
def test_a_page_of_the_inside_is_refused(fresh_url: str, folder: Path, site: Site, tmp_path: Path, url: str) -> None:
    site.routes["/"] = reply(f"<p id=p>x<script>fetch('{url}').catch(() => p.id = 'no')</script>".encode(), 200, HTML)
    variables = {"TMPDIR": str(folder), "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"])}
    with worker(fresh_url, "browser", log=tmp_path / "log", **variables), Gaia(fresh_url) as gaia:
        with pytest.raises(EgressDenied):
            gaia.submit(browser.Capture(url=url)).get(timeout=60)
        gaia.submit(browser.Capture(url=site.url(), wait_for="#no")).get(timeout=60)
        session = gaia.submit(browser.Open()).get(timeout=60).id
        gaia.submit(browser.Close(session)).get(timeout=60)
        with pytest.raises(SessionMissing):
            gaia.submit(browser.Status(session)).get(timeout=60)
