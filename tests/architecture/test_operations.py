"""Each operation is declared once, handled once, and served."""

import re
from importlib import import_module
from typing import Any

from gaia import wire
from gaia.contracts.base import CALLS, Call
from tasks.wiring import HANDLERS
from tests.support.cluster import ROOT

for queue in wire.QUEUES:
    import_module(f"gaia.contracts.{queue}")
    import_module(f"tasks.{queue}.tasks")

# Tests declare operations of their own, which live in this process too.
OURS = {name: contract for name, contract in CALLS.items() if contract.__module__.startswith("gaia.")}
HANDLED = {name: each for name, each in HANDLERS.items() if each.perform.__module__.startswith("tasks.")}


def test_each_operation_has_a_handler_and_each_handler_an_operation() -> None:
    assert HANDLED.keys() == OURS.keys()


def test_an_operation_is_named_as_its_contract_and_its_module() -> None:
    for name in sorted(OURS):
        contract = OURS[name]
        verb = re.sub(r"(?<!^)(?=[A-Z])", "_", contract.__name__).lower()
        assert name == f"{contract.QUEUE}.{verb}"
        assert contract.__module__ == f"gaia.contracts.{contract.QUEUE}"
        assert HANDLED[name].perform.__module__ == f"tasks.{contract.QUEUE}.tasks"
        assert HANDLED[name].perform.__name__ == verb


def test_an_operation_says_what_it_does() -> None:
    for name in sorted(OURS):
        assert documented(OURS[name])
        assert documented(OURS[name].RESULT)


def test_the_procfile_serves_no_queue_that_is_none() -> None:
    lines = re.findall(r"^(\w+): gaia worker (.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE)
    assert [name for name, _ in lines] == [queue for _, queue in lines] == list(wire.QUEUES)


def test_the_clients_page_lists_every_operation_and_its_result() -> None:
    page = (ROOT / "client" / "README.md").read_text()
    rows = {
        queue: (calls, results)
        for queue, calls, results in re.findall(r"^\| `(\w+)` *\|(.*)\|(.*)\|$", page, re.MULTILINE)
    }
    for contract in OURS.values():
        calls, results = rows[contract.QUEUE]
        assert f"`{contract.__name__}`" in calls
        assert f"`{contract.RESULT.__name__}`" in results


def documented(kind: type[Call[Any]] | type[Any]) -> bool:
    """Say whether a class has a text of its own: dataclasses make one of the signature."""
    return bool(kind.__doc__) and not str(kind.__doc__).startswith(f"{kind.__name__}(")
