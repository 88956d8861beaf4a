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

    for size, kept in ((100, 1), (100, 2), (100, 2), (1000, 1)):
        started = service.start(process.Start(("/bin/sh", "-c", f"head -c {size} /dev/zero")), scope)
        ids.append(started.id)
        until(lambda: service.status(process.Status(started.id), scope).exited)
        until(lambda: remembered() == ids[-kept:])
