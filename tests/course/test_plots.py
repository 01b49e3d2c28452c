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
