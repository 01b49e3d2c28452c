"""What every figure promises: a title that can be read to its end."""

import matplotlib.pyplot as pyplot
import pytest

from slmops_lab.course import plots

LONG = (
    "Clearly better than 'text': text and hidden states, text, from fitted layers, text and hidden states, from fitted"
)


@pytest.mark.parametrize("size", [(7, 3.6), (6, 4), (7.5, 4), (4, 3)])
@pytest.mark.parametrize("title", [LONG, "Message by Message: 52 % With TEXT Alone, " * 3, "Short"])
def test_a_title_ends_inside_its_figure(size, title, monkeypatch):
    figure, axes = pyplot.subplots(figsize=size)
    axes.plot([1, 2])
    monkeypatch.setattr(pyplot, "close", lambda _: None)
    plots.png(figure, title)
    drawn = figure._suptitle.get_window_extent()
    monkeypatch.undo()
    pyplot.close(figure)
    assert drawn.x1 <= figure.bbox.width
    assert figure._suptitle.get_text().split() == title.split()
    assert not drawn.overlaps(axes.get_window_extent()), "nor does it cover what is drawn"


@pytest.mark.parametrize("takeaway, alt", [("", "a"), (" ", "a"), ("a", " ")])
def test_a_figure_without_words_is_refused(takeaway, alt):
    figure = pyplot.figure()
    with pytest.raises(ValueError, match="a figure needs"):
        plots.show(figure, takeaway, alt)
    pyplot.close(figure)


def test_a_label_that_would_leave_its_figure_is_broken():
    short, long = "points (line: 95 % interval)", "nats more per right answer than with the first of them " * 3
    for unit in (short, long):
        figure = plots.dots({"a name that takes a third of the width": 1, "another": 2}, unit)
        plots.png(figure, "Two points")
        label = figure.axes[0].xaxis.label
        place = label.get_window_extent()
        assert place.x0 >= 0 and place.x1 <= figure.bbox.width
        assert ("\n" in label.get_text()) == (unit == long)


def test_an_axis_from_zero_ends_above_its_largest_value():
    narrow = [900, 901, 902]
    line = plots.lines({"memory": ([1, 2, 3], narrow)}, "requests", "MB").axes[0]
    point = plots.dots({"a": 900, "b": 902}, "MB").axes[0]
    for low, high in (line.get_ylim(), point.get_xlim()):
        assert low == 0 and high > 1.05 * 902
    low, high = plots.lines({"loss": ([1, 2], [0, 0])}, "steps", "nats").axes[0].get_ylim()
    assert low == 0 < high
    pyplot.close("all")
