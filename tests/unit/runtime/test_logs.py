"""Lines of a worker's log."""

import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from gaia.scrubbing import Scrubber
from tasks.runtime import logs


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What a logger of its own writes through the formatter."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.Formatter(logs.FORMAT))
    logger = logging.getLogger("test_logs")
    logger.propagate, logger.level, logger.handlers = False, logging.DEBUG, [handler]
    yield written
    logger.handlers = []


log = logging.getLogger("test_logs")


def test_a_line_names_the_call(output: io.StringIO) -> None:
    with logs.working_on("api.request", "id-1", Scrubber()):
        log.info("began %d", 1)
    log.info("idle")
    first, second = output.getvalue().splitlines()
    assert first.endswith("INFO    test_logs api.request[id-1] began 1")
    assert second.endswith("INFO    test_logs idle")


def test_the_secrets_of_the_call_are_struck_from_message_and_traceback(output: io.StringIO) -> None:
    with logs.working_on("api.request", "id-1", Scrubber(["hunter22"])):
        try:
            int("hunter22")
        except ValueError:
            log.exception("failed with %s", "hunter22", stack_info=True)
    assert "hunter22" not in output.getvalue()
    assert "ValueError: invalid literal for int() with base 10: '***'" in output.getvalue()
    assert "Stack (most recent call last)" in output.getvalue()


def test_what_looks_like_a_secret_is_struck_outside_a_call_too(output: io.StringIO) -> None:
    log.warning("at redis://:hunter22@h:1/0 with %s", {"Authorization": "Bearer abc.def"})
    assert "hunter22" not in output.getvalue()
    assert "abc.def" not in output.getvalue()


def test_threads_name_their_own_calls(output: io.StringIO) -> None:
    begin = threading.Barrier(4)

    def work(number: int) -> None:
        with logs.working_on("api.request", f"id-{number}", Scrubber()):
            begin.wait(10)
            log.info("of %d", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    for line in output.getvalue().splitlines():
        assert f"[id-{line[-1]}]" in line


def test_a_call_within_a_call_gives_the_outer_one_back(output: io.StringIO) -> None:
    with logs.working_on("files.batch", "outer", Scrubber()):
        with logs.working_on("files.read", "inner", Scrubber()):
            log.info("in")
        log.info("out")
    assert [line.split()[-2] for line in output.getvalue().splitlines()] == ["files.read[inner]", "files.batch[outer]"]


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_everything_goes_to_standard_error_once(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, strategy = logging.getLogger(), logging.getLogger("celery.worker.strategy")
    monkeypatch.setattr(root, "handlers", [])
    kept = root.level, strategy.level
    try:
        logs.configure(level)
        logs.configure(level)
        (handler,) = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is sys.stderr
        assert root.level == getattr(logging, level)
        assert strategy.level == max(root.level, logging.WARNING)
    finally:
        root.setLevel(kept[0])
        strategy.setLevel(kept[1])
