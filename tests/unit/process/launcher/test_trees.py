import os
import subprocess
import sys
from pathlib import Path

from tasks.process.launcher import trees


def test_what_is_in_a_directory_goes_with_it_and_what_its_links_lead_to_stays(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "kept").mkdir(parents=True)
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "file").write_bytes(b"x")
    (inside / "a" / "link").symlink_to(outside)
    (inside / "a" / "b" / "file").symlink_to(outside / "kept")
    (inside / "0~").mkdir()
    (inside / "1~").write_bytes(b"a name that is taken")
    os.mkfifo(inside / "a" / "fifo")
    for name in ("a/b", "a", "."):
        (inside / name).chmod(0)
    assert trees.remove(str(inside))
    assert not inside.exists()
    assert (outside / "kept").is_dir()


def test_a_tree_deeper_than_a_path_and_than_descriptors_goes(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    code = "import os\nfor _ in range(1200): os.mkdir('d' * 200); os.chdir('d' * 200); open('f', 'w').close()"
    subprocess.run([sys.executable, "-c", code], cwd=inside, check=True)
    assert trees.remove(str(inside))
    assert not inside.exists()


def test_a_wide_tree_goes(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / "inside" / str(number % 20) / str(number)).mkdir(parents=True)
    assert trees.remove(str(tmp_path / "inside"))


def test_what_is_not_there_is_removed(tmp_path: Path) -> None:
    assert trees.remove(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    assert not trees.remove(str(tmp_path / "file"))
