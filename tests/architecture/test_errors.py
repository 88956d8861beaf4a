"""An error is ours: fields, then a sentence; it survives what Celery makes of it, and is declared in one place."""

import ast
import inspect
import json
from dataclasses import fields
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, get_type_hints

from celery import Celery

import config
import gaia
import tasks
from gaia import errors
from gaia.errors import REGISTRY, GaiaError, Permanent, Transient, revive

BASES = (GaiaError, Permanent, Transient)
LEAVES = [kind for name, kind in sorted(REGISTRY.items()) if kind not in BASES]
SAMPLES: dict[Any, Any] = {str: "wörd 'q'", int: 41, float: 1.5, bool: True}


def sample(kind: type[GaiaError]) -> GaiaError:
    """Make an error, each field of another value."""
    hints = get_type_hints(kind)
    values = []
    for number, each in enumerate(fields(kind)):
        given = SAMPLES[hints[each.name]]
        values.append(f"{given} {number}" if isinstance(given, str) else given)
    return kind(*values)


def test_an_error_survives_what_celery_stores() -> None:
    for kind in LEAVES:
        app = Celery("errors", set_as_current=False, backend="cache+memory://")
        stored = json.loads(json.dumps(app.backend.prepare_exception(sample(kind), serializer="json")))
        assert repr(revive(stored["exc_type"], stored["exc_message"])) == repr(sample(kind))


def test_an_error_has_a_sentence_that_is_not_its_fields() -> None:
    for kind in LEAVES:
        sentence = str(sample(kind))
        assert sentence
        assert "\n" not in sentence
        assert kind.__str__ is not Exception.__str__
        assert sentence not in (str(sample(kind).args), sample(kind).args[0])


def test_an_error_may_be_retried_or_not_and_says_what_it_means() -> None:
    for kind in LEAVES:
        assert issubclass(kind, Transient) != issubclass(kind, Permanent)
        assert kind.__doc__
        assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_names_are_unique() -> None:
    tree = ast.parse(inspect.getsource(errors))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sorted(names) == sorted(set(names))
    assert set(names) == REGISTRY.keys()


def test_no_error_that_crosses_the_queue_is_declared_elsewhere() -> None:
    for package in (gaia, tasks, config):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            # tasks.app reads the environment and makes the worker's app: not here.
            if module.name != "tasks.app":
                import_module(module.name)
    heap = [GaiaError]
    while heap:
        kind = heap.pop()
        heap.extend(kind.__subclasses__())
        if not kind.__module__.startswith("tests."):
            assert kind.__module__ == "gaia.errors"
