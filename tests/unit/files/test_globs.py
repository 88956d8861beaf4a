import pytest

from tasks.files import globs


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.json", ["a.json", ".json"], ["d/a.json", "a.jsonx"]),
        ("**/*.json", ["a.json", "d/a.json", "d/e/a.json"], ["a.txt"]),
        ("d/**", ["d/a", "d/e/f"], ["d", "e/d/a"]),
        ("d/*/f", ["d/e/f"], ["d/f", "d/e/g/f"]),
        ("a?c", ["abc", "a.c"], ["a/c", "ac"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "/x"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
        ("[]]x", ["]x"], ["x"]),
        ("[x", ["[x"], ["x"]),
        ("a+b(c)|d", ["a+b(c)|d"], ["aab"]),
        ("***", ["abc"], ["a/b"]),
        ("[z-a]x", [], ["ax", "zx", "x"]),
        ("[!z-a]x", ["ax"], ["x", "/x"]),
        ("[]x", ["[]x"], ["x"]),
        ("[!]x", ["[!]x"], ["ax"]),
    ],
)
def test_a_glob_matches_what_it_says(pattern: str, matching: list[str], others: list[str]) -> None:
    found = globs.of_path(pattern)
    assert found is not None
    assert [each for each in matching if not found.match(each)] == []
    assert [each for each in others if found.match(each)] == []


def test_everything_needs_no_expression() -> None:
    assert globs.of_path("**") is None
    assert globs.of_name("*") is None


def test_a_hostile_glob_is_matched_in_time() -> None:
    found = globs.of_path("*a" * 12 + "b")
    assert found is not None
    assert not found.match("a" * 40)
