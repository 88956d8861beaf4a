"""Every operation is whole: contract, handler, queue, process, and a form on the wire."""

import importlib
import inspect
import json
import pickle
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

from gaia import codec, errors, wire
from gaia.contracts.base import CALLS
from gaia.redaction import MARK
from tasks.scope import Scope
from tasks.wiring import HANDLERS

ROOT = Path(__file__).parents[2]
for _queue in wire.QUEUES:
    importlib.import_module(f"tasks.{_queue}.tasks")

OURS = sorted(name for name, call in CALLS.items() if call.QUEUE in wire.QUEUES)
CONTRACTS = sorted(
    {kind for name in OURS for kind in (CALLS[name], CALLS[name].RESULT)}, key=lambda each: each.__qualname__
)


def test_each_call_has_one_handler_that_fits_it() -> None:
    for name in OURS:
        handler, contract = HANDLERS[name], CALLS[name]
        hints = get_type_hints(handler.perform)
        assert handler.contract is contract
        assert hints == {"call": contract, "scope": Scope, "return": contract.RESULT}


def test_a_task_body_is_one_line() -> None:
    for name in OURS:
        body = inspect.getsource(HANDLERS[name].perform).partition('"""\n')[2]
        assert len(body.strip().splitlines()) == 1


def test_each_queue_has_a_process() -> None:
    for name in OURS:
        queue = CALLS[name].QUEUE
        assert re.search(rf"^\w+: gaia worker {queue}\b", (ROOT / "Procfile").read_text(), re.MULTILINE)


def test_the_name_of_a_call_is_that_of_its_operation() -> None:
    for name in OURS:
        verb = name.partition(".")[2]
        assert CALLS[name].__name__ == "".join(part.title() for part in verb.split("_"))
        assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_every_field_has_a_form_on_the_wire() -> None:
    for contract in CONTRACTS:
        codec._encoder(contract)
        codec._decoder(contract, lenient=False)
        assert contract.__doc__


def test_what_may_hold_a_secret_is_marked() -> None:
    for contract in CONTRACTS:
        delicate = {"headers", "auth", "cookies", "env", "url", "params", "data", "json", "argv", "html", "text"}
        hints = get_type_hints(contract)
        for each in fields(contract):
            if each.name in delicate or "bytes" in str(hints[each.name]).replace("bytes'", "bytes"):
                if each.name.endswith("_bytes"):
                    continue
                assert MARK in each.metadata, f"{contract.__qualname__}.{each.name}"


def test_each_error_survives_pickle_and_json() -> None:
    for kind in errors.REGISTRY.values():
        assert is_dataclass(kind)
        assert kind.__doc__
        samples = {"str": "x", "int": 3, "float": 1.5}
        error = kind(*(samples[str(getattr(each.type, "__name__", each.type))] for each in fields(kind)))
        revived = errors.revive(kind.__name__, json.loads(json.dumps(error.args)))
        for copy in (pickle.loads(pickle.dumps(error)), revived):
            assert type(copy) is kind
            assert copy.args == error.args
            assert str(copy) == str(error)
        if fields(kind):
            assert str(error) != str(error.args)
