"""The plots show the numbers they are given, and `show` stores them with their description."""

import base64
import io
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose
from PIL import Image

from utils import course, plotting
from utils.drawing import BLUE_BAND, VERMILION_BAND, draw_graph
from utils.graph import read_graph

X, Y = torch.tensor([[-1.0, 0.0], [2.0, 1.0], [0.5, -2.0]]), torch.tensor([0.0, 1.0, 0.0])


def stored(fig, alt, **options):
    """Return the data and metadata that `show` displays, and the pixels of the picture."""
    with patch.object(plotting, "display") as display:
        plotting.show(fig, alt, **options)
    (data,), more = display.call_args
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    return data, more["metadata"]["image/png"], np.asarray(picture, int)


def test_show_stores_a_whole_picture_and_its_text():
    course.setup(seed=0)
    fig, axes = plt.subplots(1, 2, figsize=(10, 5.2), sharey=True)
    for ax in axes:
        plotting.plot_contours(lambda w: w @ w, (-1.3, 3.5), (-3.8, 1), ax)
        ax.set_title("by hand")
    data, metadata, picture = stored(fig, "Two plots.", save="plots")
    assert data["text/plain"] == "Two plots." and not plt.fignum_exists(fig.number)
    assert metadata == {"alt": "Two plots.", "save": "plots", "width": 1000, "height": 520}
    assert picture.shape[:2] == (1040, 2000)
    border = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    assert all((side > 250).all() for side in border) and (picture < 100).any()


def test_areas_keep_their_colors():
    x = torch.tensor(4.0, requires_grad=True)
    *_, picture = stored(*draw_graph(read_graph(x**3 - 3 * x, {"x": x})))
    for band in (BLUE_BAND, VERMILION_BAND):
        distance = abs(picture - [255 * part for part in to_rgb(band)]).max(axis=2)
        assert (distance < 3).mean() > 0.02


def test_contours_are_level_sets_in_even_rings():
    f = lambda w: w[0] ** 2 + 4 * w[1] ** 2 + 7  # noqa: E731
    plotting.plot_contours(f, (-2, 2), (-1, 1), ax := plt.subplots()[1])
    rings, roots = ax.collections[0], (ax.collections[0].levels - 7) ** 0.5
    assert_allclose(np.diff(roots), 0.1 * 8**0.5, rtol=1e-2)
    for path, level in zip(rings.get_paths(), rings.levels - 7, strict=True):
        assert_allclose([f(v) - 7 for v in path.vertices], level, rtol=0.02, atol=0.002)
    assert (ax.get_xlim(), ax.get_ylim(), ax.get_aspect()) == ((-2, 2), (-1, 1), 1)


def test_decision_boundary_is_where_the_logit_is_zero():
    model = lambda points: points @ torch.tensor([1.0, -2]) - 1  # noqa: E731
    plotting.plot_decision_boundary(model, X, Y, ax := plt.subplots()[1])
    _, line, zeros, ones = ax.collections
    assert abs(line.get_paths()[0].vertices @ [1, -2] - 1).max() < 1e-4
    assert_allclose([*zeros.get_offsets(), *ones.get_offsets()], X[[0, 2, 1]])


def test_images_keep_order_and_orientation():
    images = torch.arange(3.0)[:, None] * 1000 + torch.arange(784.0)
    plotting.show_images(images, ["a", "b", "c"], 2, ax := plt.subplots()[1])
    mosaic = ax.images[0].get_array()
    for image, (i, j) in zip(images.view(-1, 28, 28), [(1, 2), (1, 34), (39, 2)], strict=True):
        assert_allclose(mosaic[i : i + 28, j : j + 28], image)
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert places == {"a": (16, 29), "b": (48, 29), "c": (16, 67)}
