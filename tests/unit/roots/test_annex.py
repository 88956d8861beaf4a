"""What Gaia keeps in a root: its identity, the locks of paths, what is used."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaia.errors import Cancelled, FileBusy, QuotaExceeded
from tasks.roots import locks
from tasks.roots.annex import Annex, known_identity
from tasks.roots.usage import Quota, Used, count
from tasks.scope import Scope


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def annex(root: int) -> Iterator[Annex]:
    found = Annex(root)
    yield found
    found.close()


def test_an_identity_is_made_once_whoever_comes_first(root: int, annex: Annex) -> None:
    assert known_identity(root) == ""
    found: list[str] = []
    others = [Annex(root) for _ in range(8)]
    threads = [threading.Thread(target=lambda each=each: found.append(each.identity())) for each in others]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert known_identity(root) == annex.identity() == found[0]
    for other in others:
        other.close()


def test_an_annex_is_not_opened_through_a_link(root: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".gaia").symlink_to("elsewhere")
    with pytest.raises(OSError, match=r"directory|links"):
        Annex(root)
    assert known_identity(root) == ""
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_lock_is_waited_for_within_its_bound(root: int, annex: Annex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.05)
    other, scope = Annex(root), Scope.lasting(60)
    with annex.locks.holding(root, "f", "data:f", scope):
        for each in (annex, other):
            with pytest.raises(FileBusy) as caught, each.locks.holding(root, "f", "data:f", scope):
                pass
            assert caught.value.path == "data:f"
        scope.cancelled.set()
        with pytest.raises(Cancelled), other.locks.holding(root, "f", "data:f", scope):
            pass
    with other.locks.holding(root, "f", "data:f", Scope.lasting(60)):
        pass
    other.close()


def test_what_lies_beneath_is_counted_without_links_and_without_the_annex(root: int, tmp_path: Path) -> None:
    Annex(root).close()
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"12345")
    (tmp_path / "g").write_bytes(b"1")
    (tmp_path / "loop").symlink_to(".")
    assert count(root, Scope.lasting(60)) == Used(6, 2)


def test_a_change_past_the_quota_is_refused_and_not_recorded(annex: Annex) -> None:
    scope, quota = Scope.lasting(60), Quota(100, 2)
    with annex.usage.writing("data:f", scope):
        annex.usage.change(60, 1, quota, "data:f", scope)
        with pytest.raises(QuotaExceeded, match="100 bytes"):
            annex.usage.change(41, 0, quota, "data:f", scope)
        annex.usage.change(40, 1, quota, "data:f", scope)
        with pytest.raises(QuotaExceeded, match="2 files"):
            annex.usage.change(0, 1, quota, "data:f", scope)
        assert not annex.usage.recount("data:f", scope)
        annex.usage.change(-500, -9, quota, "data:f", scope)
    assert annex.usage.read("data:f", scope) == Used(0, 0)
    assert annex.usage.recount("data:f", scope)
