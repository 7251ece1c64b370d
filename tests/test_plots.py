"""Figures by what they draw; widgets by what their sliders do to the picture."""

import io
import itertools
import json

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import plots, widgets


@pytest.fixture(autouse=True)
def no_screen():
    plt.switch_backend("Agg")
    with matplotlib.rc_context():
        yield
    plt.close("all")


# plots


@pytest.mark.parametrize("n", [1, 2, 3])
def test_panels_stand_side_by_side_in_one_figure(n):
    axes = plots.panels(n, title="The whole", height=2.0)
    figure = axes[0].figure
    assert len(axes) == n
    assert figure.axes == list(axes)
    assert figure.get_suptitle() == "The whole"
    assert figure.get_size_inches()[1] == 2.0
    assert len({ax.get_position().y0 for ax in axes}) == 1


def test_label_names_both_directions_with_their_scales():
    ax, other = plots.panels(2)
    assert plots.label(ax, "N (parameters)", "loss (nats)", "Title", log="xy") is None
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("N (parameters)", "loss (nats)",
                                                                  "Title")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    plots.label(other, "x", "y", log="x")
    assert (other.get_xscale(), other.get_yscale()) == ("log", "linear")


def test_a_legend_stands_where_something_is_labelled():
    named, bare = plots.panels(2)
    named.plot([1, 2], label="a line")
    bare.plot([1, 2])
    for ax in (named, bare):
        plots.label(ax, "x", "y")
    assert [t.get_text() for t in named.get_legend().get_texts()] == ["a line"]
    assert bare.get_legend() is None


@pytest.mark.parametrize(("v", "text"), [
    (0.001, "0.001"), (0.5, "0.5"), (1.0, "1"), (2000, "2000"), (50_000, "50000"),
    (1e5, "$10^{5}$"), (1000.0 * 1e9, "$10^{12}$"), (2e-4, r"$2\!\times\!10^{-4}$"),
    (5e18, r"$5\!\times\!10^{18}$"), (1e-30, "$10^{-30}$")])
def test_a_tick_is_plain_or_a_power_of_ten(v, text):
    assert plots.number(v) == text


@pytest.mark.parametrize(("high", "ticks"), [
    (20, [1, 2, 5, 10, 20]), (1e4, [1, 10, 100, 1e3, 1e4])])
def test_a_short_log_axis_has_ticks_between_the_powers_of_ten(high, ticks):
    (ax,) = plots.panels()
    ax.set_xlim(1, high)
    plots.label(ax, "x", "y", log="x")
    shown = [t for t in ax.get_xticks() if 1 <= t <= high]
    assert shown == pytest.approx(ticks)
    assert [t.get_text() for t in ax.get_xticklabels(minor=True) if t.get_text()] == []


def test_interval_is_written_with_its_digits():
    assert plots.interval(0.34, 0.331, 0.3494) == "0.340 (0.331 … 0.349)"
    assert plots.interval(-1.26, -2, 0, digits=1) == "-1.3 (-2.0 … 0.0)"


def test_colors_are_different():
    assert len(set(plots.COLORS)) == len(plots.COLORS) >= 8


def test_contours_are_even_in_the_logarithm_and_leave_out_what_has_none():
    (ax,) = plots.panels()
    x, y = np.linspace(0, 2, 30), np.linspace(0, 1, 20)
    z = np.exp(x + y[:, None])
    z[0, 0] = 0
    assert plots.contours(ax, x, y, z, n_levels=5) is ax
    drawn, = ax.collections
    assert np.allclose(np.diff(np.log(drawn.levels)), np.diff(np.log(drawn.levels))[0])
    assert drawn.levels[[0, -1]] == pytest.approx([z[z > 0].min(), np.exp(3)])
    assert len(drawn.levels) == 5


def test_a_heatmap_has_its_ticks_and_unit():
    (ax,) = plots.panels()
    z = np.arange(6.0).reshape(2, 3)
    assert plots.heatmap(ax, z, ["a", "b", "c"], ["low", "high"], unit="nats") is ax
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["low", "high"]
    assert ax.figure.axes[1].get_ylabel() == "nats"
    assert np.array_equal(ax.collections[0].get_array().reshape(2, 3), z)


def test_a_picture_is_drawn_as_it_says():
    drawn = [widgets.series("line", [1, 10], [2, 3], "fit"),
             widgets.series("dash", [1, 10], [2, 2]),
             widgets.series("points", [1, 10], [3, 4], "runs", color=0)]
    shown = widgets.picture(drawn, "N", "loss", (1, 100), (1, 5), title="T", log="x")
    (ax,) = plots.panels()
    assert plots.draw(shown, ax) is ax
    line, dash, points = ax.lines
    assert [(a.get_linestyle(), a.get_marker()) for a in ax.lines] == [
        ("-", "None"), ("--", "None"), ("None", "o")]
    assert line.get_color() == points.get_color() == plots.COLORS[0]
    assert dash.get_color() == plots.COLORS[1]
    assert line.get_xydata().tolist() == [[1, 2], [10, 3]]
    assert (ax.get_xlim(), ax.get_ylim()) == ((1, 100), (1, 5))
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_title()) == ("log", "linear", "T")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["fit", "runs"]


NAN, INF = float("nan"), float("inf")


def axis():
    return plots.panels()[0]


REFUSED = {
    "panels": [((n,), "n=") for n in (0, -1, 1.5, True, None, 10**6)] + [
        ((1, None), "title=None"), ((1, "", 0), "height=0"), ((1, "", NAN), "height=nan")],
    "label": [(("ax", "x", "y"), "ax='ax'")],
    "number": [((v,), "v=") for v in (NAN, INF, -INF, "1", None, 1j, [1.0])],
    "interval": [((NAN, 0, 1), "value=nan"), ((1, NAN, 2), "low=nan"),
                 ((1, 2, 0), "low=2, high=0"), ((1, 0, 2, -1), "digits=-1"),
                 ((1, 0, 2, 1.5), "digits=1.5"), (("1", 0, 2), "value='1'")],
    "draw": [(({}, None), "picture={}|ax=None"), ((None, None), "picture=None|ax=None")]}


@pytest.mark.parametrize(("name", "args", "named"), [
    (name, args, named) for name, cases in REFUSED.items() for args, named in cases])
def test_plots_refuse_by_name_what_they_cannot_draw(name, args, named):
    with pytest.raises((ValueError, TypeError), match=f"^{name}: ({named})"):
        getattr(plots, name)(*args)


@pytest.mark.parametrize("log", ["z", "log", "xx", None, True, 1])
def test_an_unknown_logarithmic_direction_is_refused(log):
    for act in (lambda: plots.label(axis(), "x", "y", log=log),
                lambda: widgets.picture([], "x", "y", (1, 2), (1, 2), log=log)):
        with pytest.raises((ValueError, TypeError), match=r"log=.*expected one of '', 'x', 'y'"):
            act()


def test_a_log_axis_with_nothing_positive_is_refused_and_with_a_part_is_not():
    ax = axis()
    ax.plot([0, 1, 2], [-1, 0, -3])
    with pytest.raises(ValueError, match="expected positive y values, there are none"):
        plots.label(ax, "x", "y", log="y")
    ax.plot([1, 2], [1, 2])
    plots.label(ax, "x", "y", log="xy")
    plots.label(axis(), "x", "y", log="xy")  # an empty one may be filled later


@pytest.mark.parametrize(("v", "text"), [
    (0, "0"), (-0.5, "-0.5"), (-2000, "-2000"), (-1e5, "$-10^{5}$"),
    (-2e-4, r"$-2\!\times\!10^{-4}$"), (999_999, "$10^{6}$"),
    (5e-324, r"$4.94\!\times\!10^{-324}$"), (1.7e308, r"$1.7\!\times\!10^{308}$"),
    (np.float32(1e5), "$10^{5}$"), (np.int64(7), "7")])
def test_a_tick_at_any_finite_value_is_written(v, text):
    assert plots.number(v) == text


def test_an_interval_may_be_open():
    assert plots.interval(1, -INF, np.float64(INF), 1) == "1.0 (-inf … inf)"


GRID = np.exp(np.arange(6.0)).reshape(2, 3)


@pytest.mark.parametrize(("x", "y", "z", "named"), [
    ([1, 2], [1, 2], GRID, r"expected z of shape \(len\(y\), len\(x\)\)"),
    ([1, 2], [1, 2, 3], GRID, r"expected z of shape"), ([1, 2, 3], [1, 2], GRID[0], "z=.* in 2-d"),
    ([1, 2, 3], [1, 2], -GRID, "two positive values in z"),
    ([1, 2, 3], [1, 2], GRID * 0 + 1, "two positive values in z"),
    ([1, 2, 3], [1, 2], GRID * [1, 1, NAN], "z=.*finite"), ([1, NAN, 3], [1, 2], GRID, "x="),
    ([1, 2, 3], [1, 2], GRID * [1, 1, INF], "z=.*finite")])
def test_contours_of_what_has_none_are_refused(x, y, z, named):
    with pytest.raises(ValueError, match=f"contours: .*{named}"):
        plots.contours(axis(), x, y, z)


@pytest.mark.parametrize(("z", "x_ticks", "y_ticks"), [
    (GRID, ["a", "b"], ["c", "d"]), (GRID, ["a", "b", "c"], ["d"]), (GRID, "abc", ["d", "e"]),
    (GRID[0], ["a", "b", "c"], ["d"]), (np.empty((0, 3)), ["a", "b", "c"], [])])
def test_a_heatmap_and_its_ticks_fit_or_are_refused(z, x_ticks, y_ticks):
    with pytest.raises((ValueError, TypeError), match=r"^heatmap: .*expected"):
        plots.heatmap(axis(), z, x_ticks, y_ticks)


# series and pictures


@pytest.mark.parametrize(("kind", "x", "y"), [
    ("curve", [1], [1]), ("", [1], [1]), ("line", [1, 2], [1]), ("points", [], [1])])
def test_a_series_of_unknown_kind_or_unequal_lengths_is_refused(kind, x, y):
    with pytest.raises(ValueError, match=f"kind={kind!r} with {len(x)} x, {len(y)} y and"):
        widgets.series(kind, x, y)


def test_a_series_is_plain_lists():
    one = widgets.series("line", np.arange(3), (4, 5, 6), "name", color=2)
    assert one == {"kind": "line", "x": [0.0, 1.0, 2.0], "y": [4.0, 5.0, 6.0], "label": "name",
                   "color": 2}
    assert "color" not in widgets.series("line", [1], [1])


def test_cells_keep_their_shade_between_white_and_full_and_drop_it_with_their_place():
    x, y = np.meshgrid([0, 1, np.nan], [0, 1])
    one = widgets.series("cells", x, y, shade=[[-1, 0.25, 0.5], [2, 1, 0]])
    assert one["shade"] == [0, 0.25, 0.5, 1, 1, 0]
    kept, = widgets.picture([one], "x", "y", (-1, 2), (-1, 2))["series"]
    assert (kept["x"], kept["y"], kept["shade"]) == ([0, 1, 0, 1], [0, 0, 1, 1], [0, 0.25, 1, 1])
    assert "shade" not in widgets.series("line", [1], [1])
    with pytest.raises(ValueError, match="2 x, 2 y and 3 shade values"):
        widgets.series("cells", [0, 1], [0, 1], shade=[0, 1, 1])


def test_cells_are_drawn_as_unit_squares_as_dark_as_their_shade():
    one = widgets.series("cells", [0, 3], [1, 2], shade=[0.5, 1.0], color=1)
    ax, = plots.panels()
    plots.draw(widgets.picture([one], "x", "y", (-1, 4), (-1, 4)), ax)
    assert [p.get_bbox().bounds for p in ax.patches] == [(-0.5, 0.5, 1, 1), (2.5, 1.5, 1, 1)]
    assert [p.get_facecolor()[3] for p in ax.patches] == [0.5, 1.0]
    plt.close(ax.figure)


def test_a_line_of_text_is_a_control_too():
    seen = []

    def say(prompt):
        seen.append(prompt)
        return widgets.picture([], "x", "y", (0, 1), (0, 1), text=prompt)

    explorer = widgets.explore(say, prompt=ipywidgets.Text("first", description="prompt"))
    explorer.controls["prompt"].value = "second"
    assert seen == ["first", "first", "second"]
    assert explorer.canvas.picture["text"] == "second"


@pytest.mark.parametrize(("xlim", "ylim", "log", "named"), [
    ((1, 1), (0, 1), "", "xlim"), ((2, 1), (0, 1), "", "xlim"), ((0, 1), (3, 2), "", "ylim"),
    ((0, 1), (1, 2), "x", "xlim"), ((1, 2), (-1, 2), "xy", "ylim"),
    ((float("nan"), 1), (0, 1), "", "xlim")])
def test_empty_limits_and_those_not_on_a_log_axis_are_refused(xlim, ylim, log, named):
    with pytest.raises(ValueError, match=rf"{named}=\(.*expected low < high, positive on a log"):
        widgets.picture([], "x", "y", xlim, ylim, log=log)


@pytest.mark.parametrize(("log", "kept"), [
    ("", [(-1, 1), (0, 2), (1, -3), (2, 0), (3, 5)]), ("x", [(1, -3), (2, 0), (3, 5)]),
    ("y", [(-1, 1), (0, 2), (3, 5)]), ("xy", [(3, 5)])])
def test_values_that_are_not_finite_or_not_on_the_axis_are_left_out(log, kept):
    x = [-1, 0, 1, 2, 3, np.nan, 4, np.inf, 5]
    y = [1, 2, -3, 0, 5, 1, np.nan, 1, -np.inf]
    given = widgets.series("points", x, y, "all", color=3)
    shown = widgets.picture([given], "x", "y", (1, 2), (1, 2), log=log)["series"][0]
    assert list(zip(shown["x"], shown["y"], strict=True)) == kept
    assert (shown["kind"], shown["label"], shown["color"]) == ("points", "all", 3)
    assert len(given["x"]) == 9  # the caller's series is left alone


@pytest.mark.parametrize(("args", "named"), [
    (("line", ["1"], [1]), "x="), (("line", [1j], [1]), "x="), (("line", [1], None), "y=None"),
    (("line", [[1], [1, 2]], [1]), "x=.*unequal length"), (("line", [1], [1], None), "label=None"),
    (("line", [1], [1], "", -1), "color=-1"), (("line", [1], [1], "", 1.5), "color=1.5"),
    (("cells", [1], [1], "", 0, [NAN]), "shade="), (("cells", [1], [1], "", 0, ["a"]), "shade=")])
def test_a_series_that_is_not_of_numbers_is_refused(args, named):
    with pytest.raises((ValueError, TypeError), match=f"^series: {named}"):
        widgets.series(*args)


def test_a_series_may_come_from_torch():
    x = torch.ones(2, requires_grad=True)
    assert widgets.series("line", x, x.double() / 2)["y"] == [0.5, 0.5]


@pytest.mark.parametrize(("changed", "named"), [
    ({"xlim": (0, INF)}, "xlim="), ({"ylim": (-INF, 1)}, "ylim="), ({"xlim": (0, 1, 2)}, "xlim="),
    ({"xlim": None}, "xlim="), ({"ylim": ("a", "b")}, "ylim="), ({"drawn": [3]}, "drawn="),
    ({"drawn": None}, "drawn="), ({"drawn": [{}]}, "drawn="), ({"xlabel": 3}, "xlabel=3"),
    ({"text": None}, "text=None"), ({"title": b""}, "title="),
    ({"ylim": (-1e308, 1e308)}, "ylim=")])
def test_a_picture_that_cannot_be_drawn_is_refused(changed, named):
    with pytest.raises((ValueError, TypeError), match=named):
        widgets.picture(**{"drawn": [], "xlabel": "x", "ylabel": "y", "xlim": (0, 1),
                           "ylim": (0, 1), **changed})


finite_or_not = st.lists(st.floats(), max_size=6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(finite_or_not, st.sampled_from(["", "x", "y", "xy"]))
def test_a_picture_of_any_numbers_is_json_and_keeps_what_can_be_drawn(values, log):
    one = widgets.series("points", values, values[::-1])
    shown = widgets.picture([one], "x", "y", (1, 2), (1, 2), log=log)
    kept = json.loads(json.dumps(shown, allow_nan=False))["series"][0]
    assert [*zip(kept["x"], kept["y"], strict=True)] == [
        (a, b) for a, b in zip(values, values[::-1], strict=True)
        if np.isfinite([a, b]).all() and (a > 0 or "x" not in log) and (b > 0 or "y" not in log)]


# widgets


def show(slope, power=0.0, shape="line"):
    x = np.linspace(0, 1, 5)
    return widgets.picture([widgets.series(shape, x, slope * x**power)], "x", "y", (0, 1), (0, 10),
                           text=f"slope {slope:g}")


@pytest.fixture
def slider():
    return ipywidgets.FloatSlider(value=2, min=1, max=5, step=0.5, description="slope")


def test_moving_a_control_changes_the_picture(slider):
    explorer = widgets.explore(show, slope=slider)
    before = explorer.canvas.picture
    assert before == show(2)
    slider.value = 3
    assert explorer.values == {"slope": 3.0}
    assert explorer.canvas.picture == show(3) != before
    assert explorer.children == (slider, explorer.canvas)


def test_explore_tries_all_corners_before_it_shows(slider):
    seen = []

    def spy(**values):
        seen.append(tuple(values.values()))
        return show(**values)

    power = ipywidgets.FloatLogSlider(value=1, base=10, min=-1, max=1, description="power")
    shape = ipywidgets.Dropdown(options=[("solid", "line"), ("broken", "dash"), ("dots", "points")])
    widgets.explore(spy, slope=slider, power=power, shape=shape)
    corners = itertools.product((1, 5), (0.1, 10), ("line", "dash", "points"))
    assert sorted(seen[:12]) == sorted(corners)
    assert seen[12:] == [(2, 1, "line")]  # then the values they stand at


@pytest.mark.parametrize("corner", [(1, 0), (1, 3), (5, 0), (5, 3)])
def test_explore_fails_where_one_corner_does(slider, corner):
    def fragile(slope, power):
        return {}[slope] if (slope, power) == corner else show(slope, power)

    with pytest.raises(KeyError):
        widgets.explore(fragile, slope=slider, power=ipywidgets.IntSlider(value=1, min=0, max=3))


def test_the_corner_that_breaks_is_named(slider):
    def fragile(slope, power):
        return show(slope, power) if slope < 5 else 1 / power

    with pytest.raises(ZeroDivisionError, match=r"at the corner slope=5.0, power=0"):
        widgets.explore(fragile, slope=slider, power=ipywidgets.IntSlider(min=0, max=3))
    with pytest.raises(TypeError, match=r"show returned None: expected what picture(.|\n)*slope=1"):
        widgets.explore(lambda slope: None, slope=slider)


def test_too_many_corners_are_refused_before_the_first():
    sliders = {f"s{i}": ipywidgets.FloatSlider() for i in range(30)}
    with pytest.raises(ValueError, match="30 controls have 1073741824 corners: expected at most"):
        widgets.explore(lambda **values: 1 / 0, **sliders)


@pytest.mark.parametrize("control", [
    ipywidgets.Dropdown(options=[]), ipywidgets.Button(), ipywidgets.Label, 3, None,
    ipywidgets.IntRangeSlider(), ipywidgets.SelectMultiple(options=[1, 2]),
    ipywidgets.FloatSlider(min=-INF, max=1), ipywidgets.FloatSlider(min=0, max=NAN)],
    ids=lambda control: type(control).__name__)
def test_a_control_without_ends_is_refused_by_name(control):
    with pytest.raises((ValueError, TypeError), match=r"^explore: controls=.*slope: "):
        widgets.explore(show, slope=control)


def test_a_box_to_tick_has_two_ends_and_a_fixed_slider_one_value():
    assert widgets.extremes(ipywidgets.Checkbox(value=True)) == (False, True)
    assert widgets.extremes(ipywidgets.DatePicker()) == (None,)
    fixed = ipywidgets.FloatSlider(value=2, min=2, max=2, description="slope")
    assert widgets.explore(show, slope=fixed).canvas.picture == show(2)


def test_a_widget_without_a_function_is_refused(slider):
    for act in (widgets.explore, lambda show: widgets.Explorer(show, {"slope": slider})):
        with pytest.raises(TypeError, match="show=3: expected a function"):
            act(3)
    with pytest.raises(TypeError, match="Explorer: controls="):
        widgets.Explorer(show, [slider])


def test_an_error_is_shown_in_the_text_and_raised_and_gone_with_the_next_move(slider):
    def fragile(slope):
        return show(1 / (slope - 3) if slope == 3 else slope)

    explorer = widgets.explore(fragile, slope=slider)
    with pytest.raises(ZeroDivisionError):
        slider.value = 3
    assert explorer.canvas.picture["text"] == "ZeroDivisionError: float division by zero"
    assert explorer.canvas.picture["series"] == []
    assert explorer.canvas.picture["xlabel"] == "x"
    slider.value = 4
    assert explorer.canvas.picture == show(4)


def test_repr_says_what_the_sliders_say_and_no_more(slider):
    both = [repr(widgets.explore(show, slope=ipywidgets.FloatSlider(
        value=2, min=1, max=5, description="slope"))) for _ in range(2)]
    assert both == ["Explorer(slope 2.0)"] * 2
    explorer = widgets.explore(show, slope=slider)
    slider.value = 2.5
    assert repr(explorer) == "Explorer(slope 2.5)"


def test_the_stored_output_holds_the_widget_a_png_and_the_text(slider):
    explorer = widgets.explore(show, slope=slider)
    open_before = plt.get_fignums()
    bundle = explorer._repr_mimebundle_()
    assert plt.get_fignums() == open_before
    image = plt.imread(io.BytesIO(bundle["image/png"]), format="png")
    assert min(image.shape[:2]) > 100
    assert image.std() > 0
    assert bundle["text/plain"] == "Explorer(slope 2.0)\nslope 2"
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.model_id
    slider.value = 5
    assert explorer._repr_mimebundle_()["image/png"] != bundle["image/png"]


def test_the_canvas_has_the_palette_and_its_script():
    canvas = widgets.Canvas()
    assert tuple(canvas.colors) == plots.COLORS
    assert "export default" in str(canvas._esm)
