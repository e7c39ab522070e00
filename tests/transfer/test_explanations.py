"""True on every backend; `make test-backends` runs these on JAX and PyTorch."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import spearmanr

from safelight.datasets import ImageDataset
from safelight.transfer import backbones, kernel_heads, models
from safelight.transfer.augmentation import turn
from safelight.transfer.explanations import Explainer
from safelight.transfer.features import FeatureLayer
from safelight.transfer.gradients import gradients_of
from safelight.transfer.occlusion import Occluder, rank_agreement
from safelight.transfer.references import choose, find_references
from safelight.transfer.roots import scaled_roots

SIZE = 16
NUM_PICTURES = 6
ALL_SYMMETRIES = (0, 4, 6, 2, 1, 3, 5, 7)
AVERAGES = [FeatureLayer("block3_add", "avg"), FeatureLayer("block4_pool", "avg")]
BOTH = [*AVERAGES, FeatureLayer("block3_add", "max"), FeatureLayer("block4_pool", "max")]


@pytest.fixture(scope="module")
def pictures(shapes) -> list[np.ndarray]:
    return [shapes.read(i) for i in range(NUM_PICTURES)]


def features_of(classifier, pictures) -> np.ndarray:
    model = models.build_pixel_model(classifier, with_features=True)
    resize = backbones.find_resizing(classifier)
    return np.asarray(model.predict_on_batch(ops.convert_to_numpy(resize(np.stack(pictures))))[1])


def make_linear(network, heads, pictures, num_classes=3) -> keras.Model:
    """With random weights on features that are standardised by those of the pictures."""
    classifier = models.build_classifier(network, heads, num_classes)
    features = features_of(classifier, pictures)
    kernel = np.random.default_rng(1).normal(size=(features.shape[1], num_classes))
    bias = np.random.default_rng(2).normal(size=num_classes)
    models.set_linear_head(classifier, features.mean(0), features.std(0) + 0.1, kernel, bias)
    return classifier


def make_kernel(network, heads, pictures, labels) -> keras.Model:
    """With the default head, fitted on the pictures."""
    classifier = models.build_classifier(network, heads, 2, num_landmarks=len(pictures))
    fitted = kernel_heads.fit_kernel_head(
        features_of(classifier, pictures)[:, None],
        np.eye(2)[labels],
        widths=models.head_widths(classifier),
    )
    models.set_kernel_head(classifier, fitted)
    return classifier


def widen(classifier) -> keras.Model:
    """Let the default head see far; the others stay as they are.

    Fitted on six pictures that are much alike, its kernel is so narrow that float32 knows no
    likeness of other features to any of them: no slope, and flat maps, which say nothing.
    """
    for layer in classifier.layers:
        if isinstance(layer, models.Similarities):
            layer.gamma.assign(layer.gamma / 100)
    return classifier


@pytest.fixture(params=["linear", "dense", "kernel"])
def classifier(request, network, pictures, shapes):
    """One of each head, on averages and maxima of two layers."""
    if request.param == "linear":
        return make_linear(network, BOTH, pictures)
    if request.param == "kernel":
        return make_kernel(network, BOTH, pictures, shapes.labels[:NUM_PICTURES])
    return models.build_classifier(network, BOTH, 3, hidden_units=7, dropout=0.3)


@pytest.fixture
def painter():
    """A network of one 1 x 1 convolution, so that every pixel adds to the averages alone."""
    images = keras.Input((None, None, 3), dtype="uint8")
    x = backbones.ImageResizing(SIZE, SIZE, name="resizing")(images)
    x = keras.layers.Conv2D(2, 1, name="paint", use_bias=False)(x)
    model = keras.Model(images, x, name="painter")
    model.get_layer("paint").set_weights([np.array([[[[1.0, 0], [-1, 0], [0, 1]]]]) / 255])
    return model


def make_painted(network):
    """Class 1 is what is red and not green: `(mean red - mean green) / 255`."""
    classifier = models.build_classifier(network, [FeatureLayer("paint", "avg")], 2)
    weights = np.array([[0.0, 1.0], [0.0, 0.0]]), np.zeros(2)
    models.set_linear_head(classifier, np.zeros(2), np.ones(2), *weights)
    return classifier


# --- gradients


def test_gradients_of_a_formula():
    """d/dx of sum(x^2 y) is 2 x y, d/dy is x^2; what does not occur has the gradient 0."""
    x, y, z = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    found = gradients_of(lambda t: ops.sum(t[0] ** 2 * t[1]), [x, y, z])
    np.testing.assert_allclose(found[0], 2 * x * y, rtol=1e-5)
    np.testing.assert_allclose(found[1], x**2, rtol=1e-5)
    np.testing.assert_array_equal(found[2], 0)


def test_gradients_agree_with_finite_differences(classifier):
    """Of the logit by the activations, along random directions that keep silent units silent.

    On the way a maximum may change places, or a unit of the head fall silent: a kink, on one side
    of where the gradient is taken. The other side has no part in it, and must agree.
    """
    rng, step = np.random.default_rng(0), 1e-3
    # Noise, as on flat ground many places share a maximum, which then has a kink right there.
    noise = rng.uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")
    explainer = Explainer(widen(classifier))
    seen, logits = explainer._look(noise, 0)
    classes = logits.argmax(1)

    def moved(ways, step):
        pairs = zip(seen, ways, strict=True)
        there = [(each + step * way).astype("float32") for each, way in pairs]
        return np.asarray(explainer._head.predict_on_batch(there))[np.arange(3), classes]

    slopes = explainer._gradients(seen, classes)
    rounding = 2 * np.finfo("float32").eps * np.abs(logits).max() / step
    for _ in range(4):
        ways = [rng.normal(size=each.shape) * np.abs(each) for each in seen]
        pairs = zip(slopes, ways, strict=True)
        expected = sum((slope * way).sum((1, 2, 3)) for slope, way in pairs)
        here = moved(ways, 0)
        sides = [(moved(ways, side * step) - here) / (side * step) for side in (1, -1)]
        error = np.abs(np.array(sides) - expected).min(0)
        assert (error < 0.02 * np.abs(expected).max() + rounding).all()


def test_a_silent_channel_has_no_gradient_and_spoils_none():
    """The root's slope at 0 is infinite; times an activation of 0 it would be no number."""
    features = np.array([[4.0, 0, 1, 0, 9], [0, 0, 0, 0, 0]], "float32")
    layer = models.ScaledRoots([3, 2])
    weights = np.random.default_rng(0).normal(size=5).astype("float32")
    np.testing.assert_allclose(layer(features), scaled_roots(features, [3, 2]), rtol=1e-6)
    found = gradients_of(
        lambda t: ops.sum(layer(t[0]) * ops.convert_to_tensor(weights)), [features]
    )[0]
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[features == 0], 0)
    # d/dx of root(x) / sqrt(x + y) at x = 4, y = 1: weights w, v give (w/4 - ...) by hand.
    w, v = weights[0], weights[2]
    by_hand = w * (1 / (2 * 2) / 5**0.5 - 2 / (2 * 5**1.5)) - v * 1 / (2 * 5**1.5)
    np.testing.assert_allclose(found[0, 0], by_hand, rtol=1e-4)


# --- closed forms


@pytest.mark.parametrize("symmetries", [(0,), (0, 4), ALL_SYMMETRIES])
def test_a_linear_head_on_averages_is_the_mean_of_its_map(network, pictures, symmetries):
    """Zhou et al. 2016: logit = mean of the map + bias; and the gradient gives the same map."""
    classifier = make_linear(network, AVERAGES, pictures)
    classifier = models.average_views(classifier, symmetries) if len(symmetries) > 1 else classifier
    explainer = Explainer(classifier, method="cam")
    for wanted in range(3):
        classes = [wanted] * len(pictures)
        found = explainer.explain(pictures, classes)
        added = found.maps.mean((1, 2)) + explainer.bias[wanted]
        np.testing.assert_allclose(added, found.logits[:, wanted], atol=1e-4)
        by_gradient = Explainer(classifier).explain(pictures, classes).maps
        np.testing.assert_allclose(by_gradient, found.maps, atol=1e-4)
    assert found.maps.std() > 0.1


def test_selvarajus_map_is_this_one_divided_by_its_positions(network, pictures):
    """By his equations 1 and 2, with gradients written down by hand for a linear head."""
    heads = [FeatureLayer("block4_pool", "avg")]
    classifier = make_linear(network, heads, pictures)
    explainer = Explainer(classifier)
    found = explainer.explain(pictures)
    _, scale = classifier.get_layer(models.STANDARDIZE).get_weights()
    kernel, _ = classifier.get_layer(models.LOGITS).get_weights()
    pixels = np.asarray(backbones.find_resizing(classifier)(np.stack(pictures)), "float32")
    (seen,), _ = explainer._look(pixels, 0)
    positions = seen.shape[1] * seen.shape[2]
    gradient = (kernel / scale[:, None])[:, found.classes].T / positions  # alike at all positions
    weighed = np.einsum("nk,nhwk->nhw", gradient, seen)
    corners = found.maps[:, ::15, ::15]  # where enlarging a map leaves it as it was
    np.testing.assert_allclose(weighed[:, ::3, ::3], corners / positions, rtol=1e-4, atol=1e-6)


def test_position_by_position_maxima_add_up_too(network, pictures):
    """HiRes-CAM of a linear head: the mean of the map is all of the logit but its bias."""
    classifier = make_linear(network, BOTH, pictures)
    found = Explainer(classifier, method="hires-cam").explain(pictures)
    mean, scale = classifier.get_layer(models.STANDARDIZE).get_weights()
    kernel, bias = classifier.get_layer(models.LOGITS).get_weights()
    rest = (bias - (mean / scale) @ kernel)[found.classes]
    chosen = found.logits[np.arange(len(pictures)), found.classes]
    np.testing.assert_allclose(found.maps.mean((1, 2)) + rest, chosen, atol=1e-3)
    by_channel = Explainer(classifier).explain(pictures, found.classes)
    assert np.abs(by_channel.maps - found.maps).max() > 0.1  # maxima are where the two differ


@pytest.mark.parametrize(("heads", "method"), [(AVERAGES, "grad-cam"), (BOTH, "hires-cam")])
def test_maps_of_the_default_head_are_zero_on_average(network, pictures, shapes, heads, method):
    """Euler: the head knows only shares of each layer's channels, so it has degree 0 in them."""
    classifier = make_kernel(network, heads, pictures, shapes.labels[:NUM_PICTURES])
    maps = Explainer(classifier, method=method).explain(pictures).maps
    # How high a map is depends on the network's first weights, and so on the backend: 0.008 to 2
    # were seen. Whatever it is, it is far above float32's rounding, which is all that a mean has.
    assert maps.std((1, 2)).min() > 1e-3
    assert np.abs(maps.mean((1, 2))).max() < 1e-4 * maps.std((1, 2)).min()


# --- where it lights up


def test_the_map_lights_up_where_the_class_is(painter):
    """One red patch on noise: the strongest place is in it, for the map and for covering."""
    rng = np.random.default_rng(0)
    classifier = make_painted(painter)
    for row, column in ((0, 0), (4, 8), (12, 12)):
        picture = rng.integers(0, 60, (SIZE, SIZE, 3), np.uint8)
        picture[row : row + 4, column : column + 4] = (255, 0, 0)
        found = Explainer(classifier).explain([picture], [1])
        strongest = np.unravel_index(found.maps[0].argmax(), (SIZE, SIZE))
        assert row <= strongest[0] < row + 4
        assert column <= strongest[1] < column + 4
        covered = Occluder(classifier, grid=7).cover(picture, 1)
        worst = np.unravel_index(covered.drops.argmax(), covered.drops.shape)
        assert covered.rows[worst[0]].tolist() == [row, row + 4]
        assert covered.columns[worst[1]].tolist() == [column, column + 4]


@pytest.mark.parametrize("symmetries", [(0, 4), ALL_SYMMETRIES])
def test_maps_of_turned_pictures_are_turned(classifier, pictures, symmetries):
    """A classifier that averages over a group of symmetries does not care which one it is shown."""
    explainer = Explainer(models.average_views(classifier, symmetries))
    classes = [1] * len(pictures)
    plain = explainer.explain(pictures, classes).maps
    for each in symmetries[1::3]:  # a mirroring, and of all eight also two with quarter turns
        turned = explainer.explain([turn(picture, each) for picture in pictures], classes).maps
        np.testing.assert_allclose(turned, turn(plain[..., None], each)[..., 0], atol=1e-3)
    assert np.abs(plain[:, :, ::-1] - plain).max() > 1e-2


def test_averaged_views_have_the_mean_of_the_maps_turned_back(classifier, pictures):
    """By two routes: one explainer of all views, or one of the picture that is given it turned."""
    symmetries = (0, 4, 1, 3)
    classes = [1] * len(pictures)
    averaged = Explainer(models.average_views(classifier, symmetries)).explain(pictures, classes)
    alone = Explainer(classifier)
    maps = []
    for turns, flip in ((0, False), (0, True), (1, False), (3, False)):
        seen = [np.rot90(p[:, ::1], turns) for p in pictures]
        seen = [p[:, ::-1] if flip else p for p in seen]
        found = alone.explain(seen, classes).maps
        found = found[:, :, ::-1] if flip else found
        maps.append(np.rot90(found, -turns, axes=(1, 2)))
    np.testing.assert_allclose(averaged.maps, np.mean(maps, axis=0), atol=1e-3)


def test_layers_add_up(classifier, pictures):
    parts = [Explainer(classifier, layers=[name]) for name in ("block3_add", "block4_pool")]
    maps = [part.explain(pictures, [0] * len(pictures)).maps for part in parts]
    whole = Explainer(classifier).explain(pictures, [0] * len(pictures)).maps
    np.testing.assert_allclose(sum(maps), whole, atol=1e-4)
    assert min(np.abs(each).max() for each in maps) > 1e-3


def test_what_is_said_is_what_is_explained(classifier, pictures):
    found = Explainer(classifier).explain(pictures)
    np.testing.assert_array_equal(found.classes, found.logits.argmax(1))
    said = classifier.predict_on_batch(np.stack(pictures))
    np.testing.assert_array_equal(np.asarray(said).argmax(1), found.classes)
    assert found.maps.shape == (len(pictures), SIZE, SIZE)
    speaks_for = found.maps > 0
    np.testing.assert_array_equal(found.evidence[speaks_for], found.maps[speaks_for])
    np.testing.assert_array_equal(found.evidence[~speaks_for], 0)


# --- occlusion


def test_covering_a_sum_of_pixels_takes_what_they_add(painter):
    """Closed form: each patch takes its pixels' share of the logit and adds the mean's."""
    classifier = make_painted(painter)
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    covered = Occluder(classifier, grid=3).cover(picture, 1)
    worth = (picture[..., 0].astype(float) - picture[..., 1]) / 255
    for i, (top, bottom) in enumerate(covered.rows):
        for j, (left, right) in enumerate(covered.columns):
            inside = worth[top:bottom, left:right]
            expected = (inside - worth.mean()).sum() / SIZE**2
            np.testing.assert_allclose(covered.drops[i, j], expected, atol=1e-5)
    found = Explainer(classifier).explain([picture], [1])
    assert rank_agreement(found.maps[0], covered) == pytest.approx(1)
    assert rank_agreement(-found.maps[0], covered) == pytest.approx(-1)


def test_an_occlusion_as_a_map_is_what_patches_say_of_a_pixel(painter):
    """By brute force, pixel by pixel."""
    picture = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    covered = Occluder(make_painted(painter), grid=4).cover(picture, 0)
    for row in range(SIZE):
        for column in range(SIZE):
            said = [
                covered.drops[i, j]
                for i, (top, bottom) in enumerate(covered.rows)
                for j, (left, right) in enumerate(covered.columns)
                if top <= row < bottom and left <= column < right
            ]
            np.testing.assert_allclose(covered.map[row, column], np.mean(said), atol=1e-6)


def test_covering_averages_views_as_the_model_does(classifier, pictures):
    averaged = models.average_views(classifier, (0, 4))
    covered = Occluder(averaged, grid=2).cover(pictures[0], 1).drops
    alone = Occluder(classifier, grid=2)
    mirrored = alone.cover(pictures[0][:, ::-1], 1).drops[:, ::-1]
    both = (alone.cover(pictures[0], 1).drops + mirrored) / 2
    np.testing.assert_allclose(covered, both, atol=1e-4)


def test_a_flat_map_ranks_nothing(painter):
    covered = Occluder(make_painted(painter)).cover(np.zeros((SIZE, SIZE, 3), np.uint8), 1)
    assert np.isnan(rank_agreement(np.random.default_rng(0).normal(size=(SIZE, SIZE)), covered))


# --- sanity


def shuffled(model: keras.Model, prefix: str, seed: int) -> keras.Model:
    """A copy in which the weights of some layers are dealt out anew (Adebayo et al. 2018)."""
    copy = backbones.copy_model(model)
    rng = np.random.default_rng(seed)
    for layer in copy.layers:
        if layer.name.startswith(prefix) and layer.weights:
            layer.set_weights(
                [rng.permutation(w.ravel()).reshape(w.shape) for w in layer.get_weights()]
            )
    return copy


def agreement_with_shuffled(classifier, pictures, prefix: str) -> float:
    """Mean rank correlation of maps before and after, over pictures and four shuffles."""
    classes = [1] * len(pictures)
    before = Explainer(classifier).explain(pictures, classes).maps
    found = []
    for seed in range(4):
        after = Explainer(shuffled(classifier, prefix, seed)).explain(pictures, classes).maps
        pairs = zip(before, after, strict=True)
        found += [spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs]
    return float(np.mean(found))


@pytest.mark.parametrize("prefix", ["head_logits", "block4", ""])
def test_a_map_depends_on_what_was_learned(network, pictures, shapes, prefix):
    """Adebayo et al. 2018: with shuffled weights of the head, of a block, of all, another map."""
    classifier = widen(make_kernel(network, BOTH, pictures, shapes.labels[:NUM_PICTURES]))
    assert agreement_with_shuffled(classifier, pictures, "nothing") > 0.999
    assert abs(agreement_with_shuffled(classifier, pictures, prefix)) < 0.5


# --- mistakes of the caller


def test_what_cannot_be_explained_is_said(network, pictures, painter):
    linear = make_linear(network, BOTH, pictures)
    with pytest.raises(ValueError, match="block3_add/max"):
        Explainer(linear, method="cam")
    dense = models.build_classifier(network, AVERAGES, 2, hidden_units=3)
    with pytest.raises(ValueError, match="is not linear"):
        Explainer(dense, method="cam")
    with pytest.raises(ValueError, match="block3_add, block4_pool"):
        Explainer(linear, layers=["block1_conv"])
    with pytest.raises(ValueError, match="hires-cam"):
        Explainer(linear, method="lime")
    explainer = Explainer(linear)
    for classes in ([0], [0, 1, 2], [0, 3], [0, -1], [0.5, 1]):
        with pytest.raises(ValueError, match=r"one for each|one class for each"):
            explainer.explain(pictures[:2], classes)
    with pytest.raises(ValueError, match="at least one picture"):
        explainer.explain([])


def test_what_cannot_be_covered_is_said(painter):
    classifier = make_painted(painter)
    for grid in (1, SIZE):
        with pytest.raises(ValueError, match=f"grid={grid}"):
            Occluder(classifier, grid=grid)
    occluder = Occluder(classifier)
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    for class_index in (-1, 2):
        with pytest.raises(ValueError, match="0 to 1"):
            occluder.cover(picture, class_index)
    with pytest.raises(ValueError, match="expected the map"):
        rank_agreement(np.zeros((3, 3)), occluder.cover(picture, 0))


# --- against references


@pytest.fixture
def references(classifier, shapes):
    return find_references(classifier, shapes, engine="keras")


def test_a_linear_head_is_the_mean_of_its_map_and_the_logit_of_the_others(
    network, pictures, shapes
):
    """The mean of the map, which is taken off, is how far the logit is above the others' mean."""
    classifier = make_linear(network, AVERAGES, pictures, num_classes=shapes.num_classes)
    usual = find_references(classifier, shapes, engine="keras")
    for method in ("cam", "grad-cam", "hires-cam"):
        found = Explainer(classifier, method=method, references=usual).explain(pictures)
        plain = Explainer(classifier, method=method)
        chosen = choose(shapes.labels, 0)
        seen = plain.explain([shapes.read(int(i)) for i in chosen]).logits
        labels = shapes.labels[chosen]
        means = np.array([seen[labels == each].mean(0) for each in range(shapes.num_classes)])
        for i, said in enumerate(found.classes):
            others = np.delete(means, said, axis=0).mean(0)[said]
            assert found.shifts[i] == pytest.approx(found.logits[i, said] - others, abs=2e-2)
        np.testing.assert_allclose(found.maps.mean((1, 2)), 0, atol=1e-4)
        # What differs from the map without references is the same for all pictures of a class.
        away = plain.explain(pictures, found.classes).maps - found.maps
        away -= away.mean((1, 2), keepdims=True)
        for said in set(found.classes.tolist()):
            some = away[found.classes == said]
            np.testing.assert_allclose(some, some[:1].repeat(len(some), 0), atol=1e-3)


@pytest.mark.parametrize("symmetries", [(0, 4), ALL_SYMMETRIES])
def test_maps_against_references_are_turned_as_the_picture_is(
    classifier, pictures, shapes, symmetries
):
    averaged = models.average_views(classifier, symmetries)
    usual = find_references(averaged, shapes, engine="keras")
    explainer = Explainer(averaged, references=usual)
    classes = [1] * len(pictures)
    plain = explainer.explain(pictures, classes).maps
    for each in symmetries[1::3]:
        turned = explainer.explain([turn(picture, each) for picture in pictures], classes).maps
        np.testing.assert_allclose(turned, turn(plain[..., None], each)[..., 0], atol=1e-3)


def test_what_all_pictures_have_is_no_reason(painter):
    """A red corner in every picture: only the map without references lights up there."""
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 2
    images = rng.integers(0, 60, (12, SIZE, SIZE, 3), np.uint8)
    images[:, :4, :4] = (255, 0, 0)
    images[labels == 1, 8:12, 8:12] = (128, 0, 0)
    dataset = ImageDataset.from_arrays(images, labels, class_names=["a", "b"])
    classifier = make_painted(painter)
    usual = find_references(classifier, dataset, engine="keras")
    picture = images[1]
    plain = Explainer(classifier).explain([picture], [1]).maps[0]
    against = Explainer(classifier, references=usual).explain([picture], [1]).maps[0]
    assert max(np.unravel_index(plain.argmax(), plain.shape)) < 4
    assert all(8 <= place < 12 for place in np.unravel_index(against.argmax(), against.shape))


def test_references_of_another_network_are_refused(classifier, painter, references):
    with pytest.raises(ValueError, match="those of this classifier"):
        Explainer(make_painted(painter), references=references)
