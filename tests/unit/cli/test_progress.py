"""Progress: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io

import pytest

from berunda.cli.progress import Bars, Lines, Quiet, make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_right_kind_is_chosen() -> None:
    assert isinstance(make_progress(True), Quiet)
    assert isinstance(make_progress(False, io.StringIO()), Lines)
    assert isinstance(make_progress(False, Terminal()), Bars)


def test_plain_lines_tell_the_time_left_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.start("train", 300)
    for _ in range(150):
        clock.now += 0.5
        lines.advance(loss=0.53217)
    lines.note("Half way.")
    clock.now = 150.0
    lines.finish()
    text = stream.getvalue().splitlines()
    assert text[0] == "train: 0 of 300"
    assert text[1] == "train: 20 of 300 (6%), 0:10 gone, about 2:20 left, loss 0.532"
    assert len(text) == 10
    assert text[-2:] == ["Half way.", "train: 150 of 300, done in 2:30"]


def test_a_stage_without_units_and_one_that_broke_off() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("empty", 0)
    lines.advance(0)
    lines.close()
    lines.finish()
    assert stream.getvalue() == "empty: 0 of 0\n"


def test_bars_draw_and_leave_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    bars.advance()
    bars.start("map", 4)
    bars.advance(2, loss=0.5)
    bars.note("[not markup]")
    bars.finish()
    bars.start("again", 1)
    bars.close()
    text = capsys.readouterr().err
    assert "[not markup]" in text
    assert "2/4" in text
