"""The app of the test operations, for Celery's own command line."""

import tests.support.probe  # noqa: F401 - imported for its effect: it enters the handlers
from tasks.app import app

__all__ = ("app",)
