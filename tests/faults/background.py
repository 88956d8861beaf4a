"""Threads that live as long as a block."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from gaia.errors import GaiaError


class Background:
    """A thread that runs `_run` from the beginning of a block on, which ends it by `_closed`."""

    def __init__(self, name: str) -> None:
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _run(self) -> None:
        raise NotImplementedError


class Repeated(Background):
    """Does the same again and again, each time after a pause, some times or until it is left."""

    def __init__(self, step: Callable[[], Any], every_s: float, times: float = float("inf")) -> None:
        super().__init__("repeated")
        self._step, self._every_s, self._times = step, every_s, times

    def _run(self) -> None:
        done = 0
        while done < self._times and not self._closed.wait(self._every_s):
            # Redis may be slow for a moment: the next one counts.
            with suppress(GaiaError):
                self._step()
            done += 1
