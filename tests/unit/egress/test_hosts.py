"""The hosts file."""

import os
from pathlib import Path

from tasks.egress.hosts import CHECK_S, Hosts
from tasks.scope import Clock


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)


def hosts(tmp_path: Path, text: str) -> Hosts:
    path = tmp_path / "hosts"
    path.write_text(text)
    return Hosts(path, Hand().clock)


def test_addresses_of_a_name_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = hosts(tmp_path, "10.0.0.2 inner # the second\n# 10.0.0.9 inner\n10.0.0.1\tother INNER.\nfd00::1 inner\n")
    assert file.addresses("inner", "A") == ("10.0.0.2", "10.0.0.1")
    assert file.addresses("inner", "AAAA") == ("fd00::1",)


def test_a_name_with_the_other_type_only_is_known_without_addresses(tmp_path: Path) -> None:
    assert hosts(tmp_path, "10.0.0.2 inner\n").addresses("inner", "AAAA") == ()


def test_an_unknown_name_is_left_to_name_servers(tmp_path: Path) -> None:
    assert hosts(tmp_path, "10.0.0.2 inner\n").addresses("outer", "A") is None


def test_localhost_and_all_below_it_is_loopback_without_a_file(tmp_path: Path) -> None:
    file = Hosts(tmp_path / "missing", Hand().clock)
    assert file.addresses("localhost", "A") == ("127.0.0.1",)
    assert file.addresses("app.localhost", "AAAA") == ("::1",)
    assert file.addresses("notlocalhost", "A") is None


def test_broken_lines_are_passed_over(tmp_path: Path) -> None:
    file = hosts(tmp_path, "nonsense inner\n10.0.0.1\n300.1.1.1 inner\n\n  \n10.0.0.3 inner\xff inner\n")
    assert file.addresses("inner", "A") == ("10.0.0.3",)


def test_a_change_is_seen_after_the_check_interval(tmp_path: Path) -> None:
    hand, path = Hand(), tmp_path / "hosts"
    path.write_text("10.0.0.1 inner\n")
    file = Hosts(path, hand.clock)
    assert file.addresses("inner", "A") == ("10.0.0.1",)
    path.write_text("10.0.0.22 inner\n")
    os.utime(path, ns=(1, 1))
    assert file.addresses("inner", "A") == ("10.0.0.1",)
    hand.now += CHECK_S
    assert file.addresses("inner", "A") == ("10.0.0.22",)
    path.unlink()
    hand.now += CHECK_S
    assert file.addresses("inner", "A") is None
