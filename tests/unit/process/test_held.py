import pytest

from gaia.contracts import process
from tasks.process import held
from tasks.process.service import ProcessService
from tasks.scope import Scope
from tests.support.waiting import until


def test_the_output_of_what_has_ended_is_bounded_and_the_latest_stays(
    service: ProcessService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "REMEMBERED_BYTES", 250)
    scope = Scope.lasting(60)
    ids: list[str] = []

    def remembered() -> list[str]:
        service.status(process.Status(ids[-1]), scope)
        return [each.record.id for each in service._held.all()]

    def end_one_of(size: int) -> bool:
        call = process.Start(("/bin/sh", "-c", f"head -c {size} /dev/zero"))
        ids.append(service.start(call, scope).id)
        return bool(until(lambda: service.status(process.Status(ids[-1]), scope).exited))

    assert end_one_of(100)
    assert end_one_of(100)
    until(lambda: remembered() == ids)
    assert end_one_of(100)
    until(lambda: remembered() == ids[1:])
    assert end_one_of(1000)
    until(lambda: remembered() == ids[3:])
