"""The plots show the numbers they are given, and `show` stores them with their description."""

import base64

import matplotlib.pyplot as plt
import pytest
import torch
from numpy.testing import assert_allclose

from utils import course, plotting


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def displayed(monkeypatch):
    outputs = []
    monkeypatch.setattr(plotting, "display", lambda data, **kwargs: outputs.append((data, kwargs)))
    return outputs


def test_show_stores_picture_alt_text_and_name_and_closes_the_figure(displayed):
    fig, _ = plt.subplots()
    plotting.show(fig, "A line that rises.", save="line")
    [(data, kwargs)] = displayed
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == "A line that rises."
    metadata = {"image/png": {"alt": "A line that rises.", "save": "line"}}
    assert kwargs == {"metadata": metadata, "raw": True}
    assert not plt.fignum_exists(fig.number)


def test_show_gives_the_same_bytes_twice(displayed):
    for _ in range(2):
        fig, ax = plt.subplots()
        ax.plot([1, 3, 2])
        plotting.show(fig, "A line.")
    (first, _), (second, _) = displayed
    assert first == second


def test_plot_function_draws_tensors_that_require_gradients():
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    ax = plotting.plot_function(x, x**3, "x³")
    assert_allclose(ax.lines[0].get_xydata(), torch.stack([x, x**3], 1).detach())
    assert ax.get_legend().get_texts()[0].get_text() == "x³"


def test_plot_curves_draws_mean_and_range():
    runs = torch.tensor([[1.0, 5.0], [3.0, 4.0], [8.0, 0.0]])
    ax = plotting.plot_curves(range(2), runs, "runs")
    assert_allclose(ax.lines[0].get_ydata(), [4, 3])
    band = ax.collections[0].get_paths()[0].vertices
    assert_allclose([band[band[:, 0] == step, 1].min() for step in (0, 1)], [1, 0])
    assert_allclose([band[band[:, 0] == step, 1].max() for step in (0, 1)], [8, 5])


def test_contours_are_level_sets_in_even_rings_on_equal_scales():
    f = lambda w: w[0] ** 2 + 4 * w[1] ** 2 + 7  # noqa: E731
    ax = plotting.plot_contours(f, (-2, 2), (-1, 1))
    [rings] = ax.collections
    levels = rings.levels - 7
    assert_allclose((levels**0.5)[1:] - (levels**0.5)[:-1], 0.1 * 8**0.5, rtol=1e-2)
    for path, level in zip(rings.get_paths(), levels, strict=True):
        assert_allclose([f(v) - 7 for v in path.vertices], level, rtol=0.02, atol=0.002)
    assert ax.get_aspect() == 1
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 2), (-1, 1))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$w_1$", "$w_2$")


def test_contours_and_descent_share_axes():
    ax = plotting.plot_contours(lambda w: w @ w, (-1, 1), (-1, 1))
    path = torch.tensor([[0.5, -0.5], [0.2, 0.1], [0.0, 0.3]], requires_grad=True)
    assert plotting.plot_descent(path, "steps", ax, marker="s") is ax
    assert_allclose(ax.lines[0].get_xydata(), path.detach())
    assert ax.lines[0].get_marker() == "s"
    assert ax.get_legend().get_texts()[0].get_text() == "steps"


def test_plot_loop_writes_each_gap_beside_its_arrow():
    ax = plotting.plot_loop(["a", "b", "c", "d"], ["ab", "bc", "cd", "da"], wrong=[1])
    place = {text.get_text(): text.get_position() for text in ax.texts}
    for pair in ("ab", "bc", "cd", "da"):
        middle = sum(torch.tensor(place[station]) for station in pair)
        assert torch.dot(middle, torch.tensor(place[pair])) > 0
    assert place["a"][1] > 0.9 and place["b"][0] > 0.9  # clockwise from the top
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "-", "-"]


def test_plot_loop_keeps_its_gaps_outside_the_circle_and_inside_the_figure():
    ax = plotting.plot_loop(["forward", "backward", "step"], [f"a longer gap {i}" for i in "abc"])
    ax.figure.draw_without_rendering()
    *stations, a, b, c = sorted(ax.texts, key=lambda text: "gap" in text.get_text())
    circle = ax.transData.transform([line.get_xydata() for line in ax.lines][1])
    assert a.get_window_extent().x0 > ax.transData.transform((0.8, 0))[0]
    assert b.get_window_extent().y1 < circle[:, 1].min()
    assert c.get_window_extent().x1 < ax.transData.transform((-0.8, 0))[0]
    corners = zip(ax.get_xlim(), ax.get_ylim(), strict=True)
    low, high = map(ax.transData.transform, corners)
    assert (low < high).all() and not ax.axison
    for box in (text.get_window_extent() for text in ax.texts):
        assert (low <= box.min).all() and (box.max <= high).all()


def test_decision_boundary_is_where_the_logit_is_zero():
    X = torch.tensor([[-1.0, 0.0], [2.0, 1.0], [0.5, -2.0]])
    y = torch.tensor([0.0, 1.0, 0.0])
    ax = plotting.plot_decision_boundary(lambda points: points[:, 0] - 2 * points[:, 1] - 1, X, y)
    line = ax.collections[1].get_paths()[0].vertices
    assert len(line) > 100
    assert_allclose(line[:, 0] - 2 * line[:, 1], 1, atol=1e-4)
    zeros, ones = ax.collections[2:]
    assert_allclose(zeros.get_offsets(), X[y == 0])
    assert_allclose(ones.get_offsets(), X[y == 1])
    shade = ax.collections[0].get_datalim(ax.transData)
    assert_allclose(shade.get_points(), [[-1.4, -2.4], [2.4, 1.4]], atol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("$x_1$", "$x_2$", 1)


def test_show_images_keeps_order_and_orientation():
    images = torch.arange(3.0)[:, None] * 1000 + torch.arange(784.0)
    ax = plotting.show_images(images.requires_grad_(), ["a", "b", "c"], columns=2)
    images = images.detach()
    mosaic = ax.images[0].get_array()
    assert_allclose(mosaic[1:29, 2:30], images[0].view(28, 28))
    assert_allclose(mosaic[1:29, 34:62], images[1].view(28, 28))
    assert_allclose(mosaic[39:67, 2:30], images[2].view(28, 28))
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]
    assert ax.texts[2].get_position() == (16, 38 + 29)


def test_setup_seeds_and_every_color_has_its_own_dash():
    course.setup(seed=3)
    first = torch.rand(2)
    course.setup(seed=3)
    assert torch.equal(first, torch.rand(2))
    cycle = plt.rcParams["axes.prop_cycle"].by_key()
    assert len(set(cycle["color"])) == len(set(cycle["linestyle"])) == 4
    first, second = zip(cycle["color"][:2], cycle["linestyle"][:2], strict=True)
    assert (first, second) == (("#0072B2", "-"), ("#D55E00", "--"))
    assert plt.rcParams["font.size"] >= 12 and plt.rcParams["axes.grid"]
