from collections.abc import Callable
from pathlib import Path

import pytest

from gaia.errors import StartFailed
from tasks.process.homes import Homes


def use(homes: Homes, base: Path, act: Callable[[Path], object] = lambda _: None) -> Path:
    with homes.lent("/bin/true", base) as path:
        assert list(Path(path).iterdir()) == []
        assert Path(path).stat().st_mode & 0o777 == 0o700
        act(Path(path))
    return Path(path)


def test_a_directory_that_was_left_empty_is_used_again(tmp_path: Path) -> None:
    homes = Homes()
    first = use(homes, tmp_path)
    assert use(homes, tmp_path) == first
    with homes.lent("a", tmp_path) as one, homes.lent("b", tmp_path) as other:
        assert one != other


@pytest.mark.parametrize(
    "act",
    [
        lambda home: (home / "file").touch(),
        lambda home: (home / "sub" / "deep").mkdir(parents=True),
        lambda home: home.chmod(0o777),
        lambda home: home.rmdir(),
    ],
)
def test_one_that_was_not_is_removed(tmp_path: Path, act: Callable[[Path], object]) -> None:
    homes = Homes()
    first = use(homes, tmp_path, act)
    assert not first.exists()
    assert use(homes, tmp_path).is_dir()


def test_what_a_program_put_in_its_place_is_nobodys_home(tmp_path: Path) -> None:
    homes, base, elsewhere = Homes(), tmp_path / "base", tmp_path / "elsewhere"
    base.mkdir()
    (elsewhere / "config").mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()

    def swap(kind: str) -> Callable[[Path], object]:
        def act(home: Path) -> None:
            home.rename(tmp_path / f"taken-{kind}")
            if kind == "link":
                home.symlink_to(elsewhere)
            else:
                other.rename(home)

        return act

    for kind in ("link", "directory"):
        first = use(homes, base, swap(kind))
        second = use(homes, base)
        assert not second.is_symlink()
        assert second != first or not first.is_symlink()
    assert (elsewhere / "config").is_dir()


def test_one_that_changed_while_it_rested_is_not_lent(tmp_path: Path) -> None:
    homes = Homes()
    first = use(homes, tmp_path)
    (first / "planted").touch()
    assert use(homes, tmp_path) != first
    assert not first.exists()


def test_where_none_can_be_made_the_start_fails(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="no temporary directory"), Homes().lent("/bin/true", tmp_path / "none"):
        pass
