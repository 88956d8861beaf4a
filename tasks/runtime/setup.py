"""What is done before a worker consumes."""

import logging
import sys
from collections.abc import Callable

from celery import signals

from gaia.errors import GaiaError

log = logging.getLogger(__name__)


def at_setup(step: Callable[..., None]) -> None:
    """Have a step done before each worker of this process consumes, in the order in which they are entered.

    It is called with what `celeryd_after_setup` tells. One that fails ends the worker: Celery would log it, and go on.
    """

    def on_setup(**told: object) -> None:
        try:
            step(**told)
        except GaiaError as failure:
            sys.exit(f"gaia: {failure}")
        except Exception as failure:
            log.exception("the worker cannot be set up")
            sys.exit(f"gaia: the worker cannot be set up: {type(failure).__name__}, see its log")

    signals.celeryd_after_setup.connect(on_setup, weak=False)
