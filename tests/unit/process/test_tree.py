import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

from tasks.process.tree import ProcessTable, Tree

Bearers = Callable[[], list[psutil.Process]]
WaitUntil = Callable[[Callable[[], object]], None]

# A child in a session of its own, a grandchild whose parent ends at once, and their father.
FAMILY = """
sh -c "setsid sleep {marker} & echo child; wait" &
sh -c "sleep {marker} & echo orphan"
wait
"""


def start(script: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(["/bin/sh", "-c", script], stdin=pipe, stdout=pipe, start_new_session=True)


def test_the_table_shows_this_process_as_it_is() -> None:
    me = psutil.Process()
    found = ProcessTable().look()[me.pid]
    assert found.pid == me.pid
    assert found.parent == me.ppid()
    assert found.session == os.getsid(0)
    assert found.alive
    assert found.rss_bytes > 1_000_000
    assert found.cpu_s > 0


def test_a_name_with_spaces_and_brackets_is_no_trouble() -> None:
    code = "open('/proc/self/comm','w').write(') Z 1 (');print(flush=True);input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = ProcessTable().look()[child.pid]
        child.communicate(b"\n")
    assert found.parent == os.getpid()
    assert found.alive


def test_looks_within_25_ms_are_shared_unless_fresh() -> None:
    table = ProcessTable()
    first = table.look()
    assert table.look(fresh=True) is not first


def test_children_orphans_and_other_sessions_belong_to_the_tree_and_die_with_it(
    marker: str, bearers: Bearers, wait_until: WaitUntil
) -> None:
    with start(FAMILY.format(marker=marker)) as father:
        assert father.stdout is not None
        assert {father.stdout.readline(), father.stdout.readline()} == {b"child\n", b"orphan\n"}
        tree = Tree(father.pid, ProcessTable())
        wait_until(lambda: {"sleep"} <= names(tree) and len(bearers()) >= 2)
        assert os.getpid() not in {each.pid for each in tree.look(fresh=True)}
        assert tree.kill(within_s=10)
        assert tree.look(fresh=True) == []
        father.wait(10)


def test_a_session_once_seen_is_known_after_its_parent_has_died(marker: str, wait_until: WaitUntil) -> None:
    with start(f"setsid sleep {marker} & echo ready; read line") as father:
        assert father.stdout is not None
        assert father.stdout.readline() == b"ready\n"
        tree = Tree(father.pid, ProcessTable())
        wait_until(lambda: "sleep" in names(tree))
        os.kill(father.pid, signal.SIGKILL)
        os.waitid(os.P_PID, father.pid, os.WEXITED | os.WNOWAIT)
        assert names(tree) == {"sleep"}
        assert tree.kill(within_s=10)
        father.wait(10)


def test_a_process_that_only_has_the_pid_of_a_member_is_no_member() -> None:
    with start("read line") as father, subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        tree = Tree(father.pid, ProcessTable())
        tree.look(fresh=True)
        tree._known[stranger.pid] = 1
        assert [each.pid for each in tree.look(fresh=True)] == [father.pid]
        assert tree.kill(within_s=10)
        assert stranger.poll() is None
        stranger.kill()
        father.wait(10)


def test_a_signal_reaches_every_member() -> None:
    script = "trap 'echo got; exit' TERM; echo ready; while :; do sleep 0.01; done"
    with start(f"({script}) & {script}") as father:
        assert father.stdout is not None
        assert [father.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        tree = Tree(father.pid, ProcessTable())
        tree.signal(signal.SIGTERM)
        assert [father.stdout.readline() for _ in range(2)] == [b"got\n"] * 2
        father.wait(10)


def test_memory_is_summed_over_the_tree_and_its_peak_kept() -> None:
    code = "import os;os.fork();b=bytearray(50_000_000);print(flush=True);input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as father:
        assert father.stdout is not None
        for _ in range(2):
            father.stdout.readline()
        tree = Tree(father.pid, ProcessTable())
        tree.look(fresh=True)
        assert 50_000_000 < tree.memory_bytes < 100_000_000
        tree.look(fresh=True)
        assert tree.memory_bytes > 100_000_000
        assert tree.kill(within_s=10)
        assert tree.memory_bytes == 0
        assert tree.peak_memory_bytes > 100_000_000
        father.wait(10)


def names(tree: Tree) -> set[str]:
    found = set()
    for each in tree.look(fresh=True):
        with suppress(psutil.NoSuchProcess):  # it ended since the look
            found.add(psutil.Process(each.pid).name())
    return found
