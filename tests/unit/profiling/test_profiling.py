"""Profiles of this very process, and the formats that others read."""

import gzip
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tasks.profiling.formats import FORMATS, folded, pprof, speedscope, svg
from tasks.profiling.heap import heap
from tasks.profiling.profile import Frame, Kind, Profile, stack_of
from tasks.profiling.sampling import sample
from tests.support import debian

MAIN, WORK, REST = (
    Frame("main", "/a/m.py", 3, 1),
    Frame("Work.do", "/a/w.py", 9, 5),
    Frame('rest<"&;>', "/a/w.py", 20, 19),
)


@pytest.fixture
def known() -> Profile:
    found = Profile((Kind("samples", "count"), Kind("cpu", "nanoseconds")), 2.0)
    found.add((MAIN, WORK), 3, 3e9)
    found.add((MAIN, REST), 1, 1e9)
    found.add((MAIN, WORK), 1, 1e9)
    return found


@pytest.fixture
def busy() -> Iterator[None]:
    """A thread that uses CPU, beside one that waits."""
    ended = threading.Event()

    def burn_cpu() -> None:
        while not ended.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=burn_cpu), threading.Thread(target=lambda: ended.wait(60), name="waits")]
    for each in threads:
        each.start()
    yield
    ended.set()
    for each in threads:
        each.join()


# --- taking


@pytest.mark.usefixtures("busy")
def test_cpu_goes_to_the_stacks_that_use_it_and_not_to_those_that_wait() -> None:
    before = time.process_time()
    found = sample(1.0)
    used_ns = (time.process_time() - before) * 1e9
    burnt = sum(
        values[-1] for stack, values in found.stacks.items() if any("burn_cpu" in each.function for each in stack)
    )
    total = sum(values[-1] for values in found.stacks.values())
    assert 0 < burnt <= total <= 1.1 * used_ns
    assert burnt > 0.8 * total
    waiting = [stack for stack in found.stacks if stack[-1].function.endswith("Condition.wait")]
    assert waiting
    assert not any("sample" in each.function for stack in found.stacks for each in stack)


def test_the_heap_shows_what_was_allocated_meanwhile_and_lives() -> None:
    kept: list[bytes] = []

    def allocate(seconds: float) -> None:
        kept.extend(bytes(1000) for _ in range(1000))
        bytes(10_000_000)

    found = heap(0.1, allocate)
    most, values = max(found.stacks.items(), key=lambda each: each[1][-1])
    assert values[-1] >= 1_000_000
    assert sum(each[-1] for each in found.stacks.values()) < 9_000_000
    assert any(frame.file == __file__ for frame in most)


def test_a_deep_stack_is_cut_at_its_outer_end() -> None:
    import sys

    def dive(left: int) -> tuple[Frame, ...]:
        return dive(left - 1) if left else stack_of(sys._getframe())

    found = dive(300)
    assert len(found) == 128
    assert found[-1].function.endswith("dive")


# --- adding up


def test_profiles_add_up_and_survive_json(known: Profile) -> None:
    other = Profile.read(known.json())
    assert other == known
    both = Profile.merged([known, other])
    assert both.stacks[MAIN, WORK] == [8, 8e9]
    assert known.stacks[MAIN, WORK] == [4, 4e9]
    with pytest.raises(ValueError, match="different"):
        Profile.merged([known, Profile((Kind("inuse_space", "bytes"),))])


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"kinds": [], "seconds": "x", "stacks": []}'])
def test_what_is_no_profile_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Profile.read(text)


# --- formats


def test_gos_pprof_reads_it(known: Profile, tmp_path: Path) -> None:
    tool = debian.program("pprof")
    if tool is None:
        pytest.skip("NOT CHECKED: this machine has no pprof: `python -m tests.support.debian`")
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(pprof(known))
    done = subprocess.run(
        [tool, "-top", "-cum", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Type: cpu" in done.stdout
    assert re.search(r"Duration: 2s, Total samples = 5s", done.stdout)
    rows = {words[-1]: words for line in done.stdout.splitlines() if len(words := line.split(maxsplit=5)) == 6}
    assert rows["main"][3] == "5s"
    assert rows["Work.do"][0] == "4s"
    tree = subprocess.run(
        [tool, "-raw", path], capture_output=True, text=True, timeout=60, check=True, env={"HOME": str(tmp_path)}
    ).stdout
    assert "/a/w.py:9" in tree


def test_pprof_is_the_same_whenever_it_is_written(known: Profile) -> None:
    assert pprof(known) == pprof(known)
    assert b"Work.do" in gzip.decompress(pprof(known))


def test_speedscope_has_frames_samples_and_weights_that_fit(known: Profile) -> None:
    found = json.loads(speedscope(known))
    (own,) = found["profiles"]
    assert found["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert (own["type"], own["unit"], own["endValue"]) == ("sampled", "nanoseconds", 5e9)
    assert len(own["samples"]) == len(own["weights"]) == 2
    assert max(max(each) for each in own["samples"]) == len(found["shared"]["frames"]) - 1


def test_folded_lines_are_stacks_with_a_number(known: Profile) -> None:
    lines = folded(known).decode().splitlines()
    assert "main (m.py:1);Work.do (w.py:5) 4000000000" in lines
    assert all(re.fullmatch(r"[^;]+(;[^;]+)* \d+", each) for each in lines)


def test_the_picture_is_sound_xml_and_shows_every_wide_frame(known: Profile) -> None:
    root = ET.fromstring(svg(known))  # noqa: S314 - our own
    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any(each.startswith("Work.do (w.py:5): 80.0 %") for each in titles)
    assert any('rest<"&;>' in each for each in titles)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_empty_profile_can_be_written(name: str) -> None:
    assert isinstance(FORMATS[name][0](Profile((Kind("cpu", "nanoseconds"),))), bytes)
