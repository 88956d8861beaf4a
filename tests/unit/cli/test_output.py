import io

import pytest

from tasks.cli.output import LINE_LIMIT_BYTES, Lines, Output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_carries_the_name_of_its_program() -> None:
    stream = io.StringIO()
    Output(stream, width=7).line("api", "hello")
    assert stream.getvalue() == "api     | hello\n"


def test_a_pipe_gets_no_colours() -> None:
    stream = io.StringIO()
    Output(stream).line("api", "hello")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_colour_per_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    output = Output(stream)
    for name in ("api", "files", "api"):
        output.line(name, "x")
    first, second, third = stream.getvalue().splitlines()
    assert first == third
    assert first.partition("m")[0] != second.partition("m")[0]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colours_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    stream = Terminal()
    Output(stream).line("api", "hello")
    assert "\x1b" not in stream.getvalue()


def test_a_program_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    Output(stream).line("api", "a\x1b[2Jb\x07c\x9b1md\te")
    assert stream.getvalue() == "api | a[2Jbc1md\te\n"


def test_a_reader_that_left_ends_nothing() -> None:
    stream = io.StringIO()
    output = Output(stream)
    stream.close()
    output.line("api", "unseen")
    output.say("unseen")
    output._stream.close()


def test_lines_are_cut_at_line_feeds_wherever_the_reads_were() -> None:
    lines = Lines()
    assert lines.feed(b"on") == []
    assert lines.feed(b"e\r\ntwo\nth") == ["one", "two"]
    assert lines.flush() == ["th"]
    assert lines.flush() == []


def test_a_line_without_end_is_shown_in_pieces() -> None:
    lines = Lines()
    assert lines.feed(b"x" * LINE_LIMIT_BYTES) == ["x" * LINE_LIMIT_BYTES]
    assert lines.flush() == []


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert Lines().feed(b"\xff\n") == ["\ufffd"]
