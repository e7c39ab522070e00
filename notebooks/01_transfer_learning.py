# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Transfer learning: VGG16 learns to find broken solar cells
#
# A network that has seen *ImageNet*, a million photographs of dogs, cups and lorries, has learnt to
# see edges, textures and shapes. We borrow that eye, keep most of it as it is, and teach only its
# last part, the *head*, something new, with fewer than 2,000 pictures and without a graphics card.
#
# Every step is one claim, a few lines of code and one picture. What we derive by hand is asserted
# equal to what the library computes, so little here has to be believed.
#
# Run it from top to bottom: ten to thirty minutes on two cores that multiply in bfloat16 (Intel
# since Sapphire Rapids, AMD since Zen 4), two to four times that on older ones. You need Python,
# NumPy and the idea of a gradient. The exercises at the end check themselves.

# %%
import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from scipy.special import softmax
from safelight import datasets, metrics, plots, transfer
from safelight.transfer import heads, models

SMALL = os.environ.get("SAFELIGHT_NOTEBOOK_PROFILE") == "small"  # for tests: under a minute
image_size, comparison_size, epochs = (64, 32, 1) if SMALL else (160, 96, 8)
folder = tempfile.TemporaryDirectory()  # starts empty, so that the times below are honest
cache, began = transfer.FeatureCache(Path(folder.name)), time.perf_counter()
logging.getLogger("tensorflow").setLevel(logging.ERROR)
print(f"Keras {keras.__version__} on {keras.backend.backend()}, pictures of {image_size} pixels")

# %% [markdown]
# ## 1 The problem
#
# ELPV holds 2,624 electroluminescence pictures of solar cells: current flows, silicon glows, cracks
# and dead regions stay dark (Deitsch et al. 2019, arXiv 1807.02894). Experts did not say "broken",
# they said how likely it is: $p \in \{0, \tfrac13, \tfrac23, 1\}$. We call a cell *defective* if
# $p > \tfrac12$ and keep $p$ for later. *Mono* and *poly* are two ways of growing the silicon; the
# grain of poly cells is not a defect, and that is one thing that makes the task hard.
# (The pictures here and below are ELPV's, by ZAE Bayern, CC BY-NC-SA 4.0.)
#
# Before any network: what does a classifier reach that looks at nothing? One that always says
# "functional" is right as often as functional cells are frequent. This *majority baseline* is the
# zero of our scale.

# %%
elpv = datasets.load("elpv")
defect, types = elpv.targets[:, 1].round(2), np.array(elpv.types)
majority = np.bincount(elpv.labels).max() / len(elpv)
for p, count in zip(*np.unique(defect, return_counts=True), strict=True):
    print(f"p = {p:.2f} {count:6d} cells   {elpv.class_names[int(p > 0.5)]}")
print(f"majority baseline: {majority:.1%}")

sound, cracked = elpv.read(8), elpv.read(17)  # two cells that we shall meet again
kinds = [(kind, p) for kind in ("mono", "poly") for p in np.unique(defect)]
examples = [np.flatnonzero((types == kind) & (defect == p))[7] for kind, p in kinds]
titles = [f"{kind}, p = {p:.2f}" for kind, p in kinds]
plots.plot_image_grid([elpv.read(i) for i in examples], titles=titles, columns=4)

# %% [markdown]
# ## 2 Three parts, three purposes
#
# *Training* fits weights. *Validation* chooses: when to stop, which setting. *Test* only judges, at
# the end: nothing is chosen by it, because whatever we choose by a score stops being fairly judged
# by it. The split is *stratified*: each part has its share of each class, so that parts differ in
# luck as little as possible.

# %%
elpv = elpv.subset(np.arange(0, len(elpv), 16 if SMALL else 1))
splits = datasets.split(elpv, test_fraction=0.25, validation_fraction=0.15, seed=0)
for name, rows in splits.indices.items():
    print(f"{name:10} {len(rows):5d} cells, {elpv.labels[rows].mean():.1%} of them defective")
    assert abs(elpv.labels[rows].mean() - elpv.labels.mean()) <= 1 / len(rows)

# %% [markdown]
# Copies of one picture must not be dealt to both sides, or the test asks what the training has
# already answered. If pictures came in pairs and were shuffled blindly into shares $s_k$, a pair
# would be torn apart with probability $1 - \sum_k s_k^2 = 1 - 0.6^2 - 0.15^2 - 0.25^2$, more often
# than not. `split` keeps them together. Let us make copies and see.

# %%
some = np.concatenate([np.flatnonzero(elpv.labels == label)[:24] for label in (0, 1)])
pixels = np.stack([elpv.read(i, mode="L") for i in some])
twice = np.concatenate([pixels, pixels]), np.tile(elpv.labels[some], 2)
copies = datasets.ImageDataset.from_arrays(*twice, class_names=elpv.class_names)
dealt = datasets.split(copies, test_fraction=0.25, validation_fraction=0.15, seed=0)
homes = [{*rows} for rows in dealt.indices.values()]
torn = [pair for pair in copies.duplicates if not any({*pair} <= home for home in homes)]
assert copies.duplicates
assert not torn
print(f"{len(copies.duplicates)} pairs, {len(torn)} torn apart by the split")

# %% [markdown]
# ## 3 What VGG16 sees
#
# VGG16 (Simonyan and Zisserman 2014, arXiv 1409.1556) is as plain as networks get: five blocks of
# $3 \times 3$ convolutions, and after each block a maximum over $2 \times 2$ positions. Going up,
# pictures get smaller and channels more numerous: *where* is traded for *what*.
#
# The first layer looks directly at pixels, so its 64 kernels are pictures themselves: edges of all
# directions, spots of colour. One trap: these weights come from Caffe, which stores colours as
# blue, green, red. Drawn in the wrong order, orange turns to blue, and nobody notices.

# %%
backbone = transfer.load_backbone("vgg16", image_size=image_size)
convolutions = [layer for layer in backbone.layers if "_conv" in layer.name]
for block in range(1, 6):
    mine = [layer for layer in convolutions if layer.name.startswith(f"block{block}")]
    weights = sum(layer.count_params() for layer in mine)
    shape = backbone.get_layer(f"block{block}_pool").output.shape[1:]
    print(f"block{block}: {len(mine)} convolutions, {weights:9,d} weights, ends with {shape}")
plots.plot_filters(backbone.get_layer("block1_conv1").get_weights()[0], channel_order="bgr")

# %% [markdown]
# Deeper layers can be asked what they answer to a picture. Above a functional cell, below a cracked
# one; next to each, at three depths, the two channels whose answer to the cracked one exceeds that
# to the other most. Bright is a strong answer. Block 1 draws everything, block 3 textures, block 5
# answers in coarse places, and to things.

# %%
deep = ["block1_conv2", "block3_conv3", "block5_conv3"]
look = keras.Model(backbone.input, [backbone.get_layer(name).output for name in deep])
above, below, titles = [sound], [cracked], ["functional, then cracked"]
for name, maps in zip(deep, look.predict(np.stack([sound, cracked]), verbose=0), strict=True):
    for channel in np.argsort(maps[0].max((0, 1)) - maps[1].max((0, 1)))[:2]:
        above.append(maps[0, ..., channel] / maps[..., channel].max())
        below.append(maps[1, ..., channel] / maps[..., channel].max())
        titles.append(f"{name}\nchannel {channel}")
plots.plot_image_grid([*above, *below], titles=[*titles, *[""] * 7], columns=7)

# %% [markdown]
# ## 4 Preprocessing belongs to the weights
#
# A network expects the numbers it was trained with. For VGG16 that is $x_{\text{BGR}} - \mu$ with
# the mean colour $\mu$ of ImageNet on a scale of 0 to 255, *not* divided by anything. In Safelight
# it is a layer of the model: who saves, serves or exports the model cannot forget it. By hand it
# is two lines.

# %%
resized = keras.ops.convert_to_numpy(backbone.get_layer("resizing")(cracked[None]))
by_hand = resized[..., ::-1] - np.array([103.939, 116.779, 123.68])  # RGB to BGR, minus the mean
np.testing.assert_allclose(by_hand, backbone.get_layer("preprocessing")(resized), atol=1e-4)
print(f"what VGG16 expects   from {by_hand.min():7.1f} to {by_hand.max():6.1f}")
print(f"what x / 255 gives   from {resized.min() / 255:7.1f} to {resized.max() / 255:6.1f}")

# %% [markdown]
# No error, no warning: the network runs on $x/255$ as well. Whether it costs accuracy is measured
# at the end of the next section, when there is something to measure it with.
#
# ## 5 Replacing the head
#
# VGG16's own last layers know 1,000 classes, none of them a solar cell. We drop them, run the
# convolutions once over all pictures, and keep what comes out at two places: after block 4, where
# we shall cut later, and after block 5. No labels are used, so the test part may come along.
#
# *Global average pooling* makes one number per channel: how much of this feature is in the picture,
# wherever it is, $f_c = \frac{1}{HW}\sum_{i,j} a_{ijc}$. That a crack may be anywhere is now built
# in, and a picture is down to 512 numbers.

# %%
extractor = transfer.FeatureExtractor(backbone, cache=cache)
cut, last = transfer.FeatureLayer("block4_pool"), transfer.FeatureLayer("block5_pool", "avg")
average = transfer.FeatureLayer("block4_pool", "avg")
started = time.perf_counter()
features = extractor.extract(elpv, [cut, average, last])
print(f"{len(elpv) / (time.perf_counter() - started):.0f} pictures/s in {extractor.precision}")
by_hand = features[cut].gather(range(16)).astype("float32").mean((1, 2))
np.testing.assert_allclose(by_hand, features[average].gather(range(16)), rtol=1e-3, atol=1e-3)
for layer, rows in features.items():
    print(f"{layer!s:16} {rows.num_images} rows of shape {rows.shape}")

# %% [markdown]
# The new last layer is logistic regression. Features are standardised, so that a channel counts by
# what it says and not by how loudly; then a score per class, and the scores become probabilities:
#
# $$z = W^\top \frac{f - m}{s} + b, \qquad p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad
# L = -\frac1n \sum_{i=1}^n \log p_{i, y_i} + \frac{\lambda}{2} \lVert W \rVert^2 .$$
#
# The loss $L$ without its penalty is the *cross-entropy*: the surprise at the truth, per picture,
# in *nats* (a nat is what a bit is, with the natural logarithm). It is convex, and with the penalty
# strictly so in $W$: there is one best $W$, and L-BFGS finds it in seconds. The strength $\lambda$
# is chosen by cross-validation inside the training part.


# %%
def head_probabilities(head, rows):
    return softmax((rows - head.mean) / head.scale @ head.kernel + head.bias, axis=1)


train, validation, test = (splits.indices[part] for part in ("train", "validation", "test"))
rows, targets = features[last].gather(), np.eye(2)[elpv.labels]
head = heads.fit_logistic_head(rows[train][:, None], targets[train])
p = head_probabilities(head, rows[validation])
score = metrics.classification_metrics(elpv.labels[validation], p)
by_hand = -np.log(p[np.arange(len(p)), elpv.labels[validation]]).mean()
np.testing.assert_allclose(by_hand, score["loss"].value, rtol=1e-6)
print(f"validation accuracy {metrics.format_percent(score['accuracy'])}, loss {by_hand:.3f} nats")

# %% [markdown]
# And the debt from section 4. The same network, the same head, but $x/255$ in place of the
# preprocessing layer: nothing complains. Both answer the *same* pictures, so their difference is
# counted picture by picture. Where its interval holds 0, these pictures are too few to show a cost:
# the head that is fitted on top mends much. That nothing warns you is shown all the same.


# %%
def swap(layer):
    other = keras.layers.Rescaling(1 / 255, name="preprocessing")
    return other if layer.name == other.name else layer.from_config(layer.get_config())


wrong = keras.models.clone_model(backbone, clone_function=swap)
wrong.set_weights(backbone.get_weights())
bad = transfer.FeatureExtractor(wrong, cache=cache).extract(elpv, [last])[last].gather()
scores, said = {}, []
for name, f in {"BGR minus mean (right)": rows, "x / 255 (wrong)": bad}.items():
    fitted = heads.fit_logistic_head(f[train][:, None], targets[train])
    said.append(head_probabilities(fitted, f[validation]))
    found = metrics.classification_metrics(elpv.labels[validation], said[-1])
    scores[name] = found["accuracy"]
lost = metrics.paired_difference(elpv.labels[validation], said[0], probabilities_b=said[1])
print(f"right minus wrong: {metrics.format_percent(lost).replace('%', 'points')}")
plots.plot_intervals(scores, label="validation accuracy (%), with 95 % interval")

# %% [markdown]
# ## 6 Freezing, as an equation, a bill and a proof
#
# Write the network as $g_\phi(h_\theta(x))$ and train only $\phi$. Freezing $\theta$ means that its
# gradient is taken as zero, whatever the loss says:
#
# $$\theta_{t+1} = \theta_t - \eta \cdot 0 \quad\Rightarrow\quad \theta_t = \theta_0 \quad
# \Rightarrow\quad h_{\theta_t}(x) = h_{\theta_0}(x) \text{ for every step } t .$$
#
# The activation at the cut is a *constant* of the picture. So never compute a frozen layer twice:
# store $h_{\theta_0}(x)$, train $g_\phi$ on it. What is saved follows from the layers' shapes: a
# $k \times k$ convolution from $a$ to $b$ channels over $s \times s$ positions takes
# $2 k^2 a b s^2$ operations. Training a layer takes about three times that: forward, gradient for
# its weights, gradient for its input (which the lowest trained layer does not need). With $F$
# operations for a picture's way through blocks 1 to 4 and $T$ for training block 5, a step with
# frozen blocks costs about $F + T$, and from stored activations only $T$.

# %%
channels = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
sides = image_size // 2 ** np.repeat(range(5), [2, 2, 3, 3, 3])
by_hand = [2 * 9 * a * b * s**2 for a, b, s in zip(channels, channels[1:], sides, strict=False)]
counted = [2 * np.prod(la.output.shape[1:3]) * np.prod(la.kernel.shape) for la in convolutions]
np.testing.assert_allclose(by_hand, counted)
trunk, training = sum(by_hand[:10]), 3 * sum(by_hand[10:]) - by_hand[10]
promised, all_of_it = (trunk + training) / training, (3 * sum(by_hand) - by_hand[0]) / training
print(f"{sum(by_hand) / 1e9:.1f} GFLOP, {trunk / 1e9:.1f} frozen: {promised:.1f} times faster")
print(f"training all of the network: {all_of_it:.0f} times as much as block 5 from what is stored")

# %% [markdown]
# The bill, measured: one step of training on 32 pictures through the whole network with blocks 1 to
# 4 frozen, against the same step of the *tail*, which is block 5 and the head, on stored
# activations. Expect less than was promised: gradients do not come as near to a processor's peak as
# the way forward does, above all in bfloat16, and starting operations takes time, too.

# %%
classifier = transfer.build_classifier(backbone, [last], num_classes=2)
whole = models.build_pixel_model(classifier, cut=cut.layer, precision=extractor.precision)
tail = models.build_tail(classifier, [cut], precision=extractor.precision)
pixels = backbone.get_layer("resizing")(np.stack([elpv.read(i) for i in train[:32]]))
seconds = {}
for model, inputs in ((whole, pixels), (tail, features[cut].gather(train[:32]))):
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.train_on_batch(inputs, targets[train[:32]])  # the first step compiles
    started = time.perf_counter()
    for _ in range(5):
        model.train_on_batch(inputs, targets[train[:32]])
    seconds[model.name] = (time.perf_counter() - started) / 5
slow, fast = seconds["network"], seconds["tail"]
print(f"{slow:.2f} s a step, from stored activations {fast:.2f} s: {slow / fast:.1f} times faster")

# %% [markdown]
# The proof: fingerprints (SHA-256) of every block's weights before and after these six steps. One
# changed bit in millions would change a fingerprint. In a network with batch normalisation the
# moving averages must stand still, too; Safelight freezes these as well.


# %%
def fingerprint(model, block):
    weights = [w for la in model.layers if la.name.startswith(block) for w in la.get_weights()]
    return hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()[:12]


for block in (f"block{i}" for i in range(1, 6)):
    before, after = fingerprint(backbone, block), fingerprint(whole, block)
    print(block, before, after, "unchanged" if before == after else "trained")
    assert (before == after) == (block != "block5")
print(f"{transfer.freeze(backbone, until='block4_pool'):,d} weights are frozen")

# %% [markdown]
# ## 7 Augmentation: what must not matter
#
# A mirrored or slightly turned cell has the same defects. Showing such *views* tells the network
# so. But a picture that is new at every step has no stored activation, so Safelight makes a few
# views per picture, *numbered*: view $k$ is a function of the picture, $k$, the seed and the
# settings, and of nothing that happened before. It is the same in every *epoch*, as a pass over all
# training pictures is called, and in every process, so its activations can be stored as well. Below
# are eight; the training of section 8 uses the first two, the picture and one mirrored view, and so
# never sees it upside down (`views=4` would).

# %%
how = {"unfreeze_from": "block5_conv1", "views": 2, "vertical_flip": True}
how |= {"rotation": 0.01, "zoom": 0.02, "head": "logistic", "test_views": 1}
how["head_layers"] = [f"{n}_pool/{p}" for p in ("avg", "max") for n in ("block4", "block5")]
config = transfer.TrainConfig(image_size=image_size, epochs=epochs, **how)
views = transfer.ViewMaker(config.augmentation, seed=0)
shown = [views(cracked.astype("float32"), "any name", k) for k in range(8)]
np.testing.assert_array_equal(shown[5], views(cracked.astype("float32"), "any name", 5))
plots.plot_image_grid(
    shown, titles=[f"view {k}" for k in range(8)], columns=4, value_range=(0, 255)
)

# %% [markdown]
# ## 8 Training: the head first, then block 5
#
# If block 5 were trained below a random head, the head's first, wild gradients would spoil good
# features. So the head is fitted to its optimum first, and fine-tuning goes on from there with a
# small learning rate: LP-FT (Kumar et al. 2022, arXiv 2202.10054). Both learn from the experts'
# probabilities, $-\sum_k t_k \log p_k$ where $t = (1 - q, q)$ is what an expert who says $q$ wants,
# which says more than a yes or no. The loss of the curve below is this one, which cannot reach 0
# where experts doubt; the loss on the test part, after it, is against yes and no.
#
# The curve begins with the head alone, as epoch 0. Which weights are kept? The least of several
# noisy validation losses is a lottery, so it is the *average* of the weights over the second half
# of the epochs, unless one epoch is better by more than one standard error of the difference; the
# line "kept" says which it was. Last, all scores are divided by one number, the *temperature*,
# found on the validation part, so that "90 % sure" is right nine times in ten (Guo et al. 2017,
# arXiv 1706.04599). That changes no answer, only how sure it is.

# %%
trained = transfer.train(splits, config, cache=cache)
print("seconds:", {stage: round(value, 1) for stage, value in trained.seconds.items()})
print(f"kept: {trained.kept}; temperature {trained.temperature:.2f}")
print(f"{trained.images_computed} views ran up to {trained.cut}; all else was stored before")
plots.plot_history(trained.history)

# %% [markdown]
# Now the test part. A number from a few hundred pictures is a draw from a lottery; the *interval*
# says which truths could well have drawn it: in 95 of 100 such experiments it covers the accuracy
# that we would see on infinitely many pictures of this kind *from the same modules*. Cells of one
# module resemble each other, and most modules have cells on both sides of our split; on new modules
# accuracy is lower, and exercise 4 gives an idea of how much. One thing more to confess: the
# settings in `how` were found by trials on these very cells, so the numbers flatter a little.
#
# Next to accuracy are three scores that a large class cannot carry alone. *Balanced accuracy* is
# the mean over classes of the share that was found. *Macro F1* is the mean over classes of the
# harmonic mean of that share and of the share of alarms that were right. *ROC AUC* is how often a
# defective cell gets a higher probability than a functional one.

# %%
report = transfer.evaluate(trained.model, splits.test, config=config, cache=cache)
print(f"loss {report.metrics['loss']} nats per picture; majority baseline {majority:.1%}")
plots.plot_intervals({k: v for k, v in report.metrics.items() if k != "loss"})

# %% [markdown]
# Both kinds of interval by hand. Accuracy is a proportion $\hat p$ of $n$, and Wilson's interval
# holds every truth $p$ that is within $z = 1.96$ standard deviations of it,
# $|\hat p - p| \le z \sqrt{p(1-p)/n}$, solved for $p$. The loss is a mean with a long tail, a few
# pictures that surprise a lot, so plus and minus the same will not do. We *bootstrap*: draw $n$ of
# the $n$ test pictures with replacement, many times, and see how the mean moves. (The library
# corrects its bootstrap for bias and skewness; hence the small difference.)

# %%
right, n, z = report.probabilities.argmax(1) == report.labels, len(report.labels), 1.959964
middle, half = right.mean() + z**2 / (2 * n), z * np.sqrt(right.var() / n + z**2 / (4 * n**2))
wilson = np.array([middle - half, middle + half]) / (1 + z**2 / n)
accuracy, loss = report.metrics["accuracy"], report.metrics["loss"]
np.testing.assert_allclose(wilson, [accuracy.low, accuracy.high], atol=1e-5)

surprise = -np.log(report.probabilities[np.arange(n), report.labels])
draws = np.random.default_rng(0).integers(0, n, (4000, n))
ends = np.quantile(surprise[draws].mean(1), [0.025, 0.975])
near = (0.5 if SMALL else 0.15) * (loss.high - loss.low)
np.testing.assert_allclose(ends, [loss.low, loss.high], atol=near)
print(f"accuracy: {wilson.round(4)} by hand, {accuracy} by the library")
print(f"loss: {ends.round(4)} by hand, {loss} by the library")

# %% [markdown]
# ## 9 What is transfer worth?
#
# Three ways, with the same pictures to learn and to choose from and the same size: the same network
# *from scratch* (random start, all layers trained), transfer with a *frozen base* (only the head,
# which needs no validation pictures and learns from these, too), and transfer *fine-tuned* (block 5
# as well). Each has an empty cache of its own and so pays for everything itself. By section 6,
# training all of VGG16 costs twelve times as much per picture as training block 5 from stored
# activations; so this comparison runs at 96 pixels, for four epochs, from scratch with five times
# the learning rate.
#
# Two things to be fair about. Four epochs are too few from scratch; many more may help, and would
# take hours. And all three start with a fitted logistic head, also on *random* convolutions, whose
# averages are worth something: if epoch 0 is kept, that is all we see.
#
# Are the differences real? All three answer the *same* pictures, so compare picture by picture:
# what is hard for both cancels, and the interval of the difference is narrower than two intervals
# side by side suggest. The first difference below is, if epoch 0 was kept from scratch, that
# between pretrained features and *random* ones, by and large (the frozen base's head also had the
# validation pictures and a second view of each); the second is what fine-tuning adds. Where an
# interval holds 0, these pictures do not show a gain; its ends say how much gain or loss is still
# possible.

# %%
same = {**how, "image_size": comparison_size, "epochs": 4, "patience": 4}
ways = {
    "from scratch": transfer.TrainConfig(pretrained=False, learning_rate=1e-4, **same),
    "frozen base": transfer.TrainConfig(**{**same, "unfreeze_from": None}),
    "fine-tuned": transfer.TrainConfig(**same),
}
results, said = {}, {}
for name, way in ways.items():
    own = transfer.FeatureCache(Path(folder.name) / name)
    other = transfer.train(splits, way, cache=own)
    judged = transfer.evaluate(other.model, splits.test, config=way, cache=own)
    results[name] = judged.metrics["accuracy"], sum(other.seconds.values())
    said[name] = judged.probabilities
    print(f"{name}: kept {other.kept}")
for a, b in (("frozen base", "from scratch"), ("fine-tuned", "frozen base")):
    gain = metrics.paired_difference(judged.labels, said[a], probabilities_b=said[b])
    print(f"{a} minus {b}: {metrics.format_percent(gain).replace('%', 'points')}")
plots.plot_comparison(results)

# %% [markdown]
# ## 10 Look at the mistakes
#
# The pictures on which the network of section 8 is wrong and most sure of it. Before you call it
# stupid, say what you would have said.

# %%
worst = metrics.confident_mistakes(report.labels, report.probabilities, num_images=8)
gallery = {i: splits.test.read(i) for i in worst}
truth, p = report.labels, report.probabilities
plots.plot_mistakes(gallery, truth, probabilities=p, class_names=elpv.class_names, num_images=8)

# %% [markdown]
# Which way does it err? A missed defect and a false alarm rarely cost the same, and accuracy does
# not tell them apart: left, the *confusion matrix*. Right, accuracy by what the experts said: where
# they were sure ($p = 0$ or $1$), and where not ($\tfrac13$ or $\tfrac23$). Read both together: is
# it doubt that costs accuracy, or the class? Where defects that experts were sure of are missed
# more often than doubtful cells raise an alarm, it is the class: a threshold below one half would
# find more of them and pay with false alarms. Doubt sets a ceiling all the same: no network can
# always agree with experts who are not sure, so that an honest one lies below 100 %.

# %%
figure = plots.Picture(figsize=(11, 3.8), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[2, 3])
plots.plot_confusion_matrix(report.confusion_matrix, elpv.class_names, ax=left)
doubt, by_doubt = splits.test.targets[:, 1].round(2), {}
for value in np.unique(doubt):
    some = doubt == value
    table = metrics.per_class_table(truth[some], p[some], class_names=elpv.class_names)
    by_doubt[f"p = {value:.2f} ({some.sum()} cells)"] = table[int(value > 0.5)].recall
plots.plot_intervals(by_doubt, label="accuracy (%), with 95 % interval", ax=right)

# %% [markdown]
# ## 11 Save, load, predict
#
# Training split the network in two. What is saved is one Keras model again: raw `uint8` pictures
# in, any size, resizing and preprocessing inside, probabilities out. It loads wherever
# `safelight.transfer` is imported, which knows the layers for resizing and preprocessing, and in
# Keras' safe mode, which refuses code that lies in a file. In float32 it answers as stored
# activations and tail do.

# %%
trained.model.save(Path(folder.name) / "model.keras")
loaded = keras.saving.load_model(Path(folder.name) / "model.keras", safe_mode=True)
few = splits.test.subset(range(8))
exact = transfer.TrainConfig(image_size=image_size, precision="float32", **how)
from_tail = transfer.evaluate(loaded, few, config=exact, cache=cache).probabilities
from_pixels = loaded.predict(np.stack([few.read(i) for i in range(8)]), verbose=0)
np.testing.assert_allclose(from_pixels, from_tail, atol=1e-4)
print(f"the two ways differ by {np.abs(from_pixels - from_tail).max():.0e} at most")
unseen = int(np.argmax(splits.test.targets[:, 1]))  # the first that the experts were sure of
chance = transfer.predict(loaded, [splits.test.read(unseen)])[0, 1]
print(f"a defective cell of the test part: {chance:.1%} defective")
print(f"from top to bottom: {(time.perf_counter() - began) / 60:.1f} minutes")

# %% [markdown]
# In one line, without Python: `safelight transfer train elpv --output RUN` (with its own defaults:
# the head alone, at 224 pixels), and `safelight transfer predict RUN PICTURE...`; a folder with a
# sub-folder per class takes the place of `elpv`.
#
# ## 12 Exercises
#
# Put your values in place of `None` and run the cell; it says whether you are right. Solutions are
# folded below.
#
# 1. How many weights of `backbone` can be trained after
#    `transfer.unfreeze_from(backbone, "block4")`?
# 2. Section 6 promised a speed-up for training block 5. What is left of it if block 4 is trained
#    as well?
# 3. Two classifiers of about 86 % are tested on 656 pictures each, not the same ones. How many
#    points must lie between them to be found with 80 % power at the 5 % level?
#    ($z = 1.96 + 0.84$)
# 4. Neighbours in the data set come from few solar modules and look alike. Split with
#    `strategy="grouped"` and with `"stratified"`, seeds 0 to 4, fit the head of section 5 to
#    `rows`, and average the test accuracy. How many points are lost by splitting in blocks?

# %%
trainable, speed_up, points, lost = None, None, None, None


def check(question, yours, expected, tolerance):
    right = yours is not None and abs(yours - expected) <= tolerance
    verdict = f"expected {expected:,} ± {tolerance}: right" if right else "not yet"
    print(f"{question}: your value {yours}, {verdict}")


check("1 trainable weights", trainable, 12_979_200, 0)
check("2 speed-up, blocks 4 and 5 trained", speed_up, 1.54, 0.03)
check("3 smallest difference in points", points, 5.4, 0.1)
check("4 points lost by splitting in blocks", lost, 4.8, 1.0)

# %% [markdown]
# <details>
# <summary>Solutions</summary>
#
# ```python
# # 1. A layer that is frozen has no trainable weights.
# transfer.unfreeze_from(backbone, "block4")
# trainable = sum(int(np.prod(weight.shape)) for weight in backbone.trainable_weights)
#
# # 2. Seven convolutions lie below the cut now, six above it; the lowest needs no gradient of its
# # input.
# below, training = sum(counted[:7]), 3 * sum(counted[7:]) - counted[7]
# speed_up = (below + training) / training
#
# # 3. The difference of two independent proportions has variance 2 p (1 - p) / n. Paired on the
# # same pictures, as in section 9, it takes less.
# points = 100 * (1.96 + 0.84) * np.sqrt(2 * 0.86 * 0.14 / 656)
#
# # 4. Blocks of 60 cells share modules, and with them their looks.
# means = {}
# for strategy in ("stratified", "grouped"):
#     accuracies = []
#     for seed in range(5):
#         at = datasets.split(elpv, seed=seed, strategy=strategy).indices
#         fitted = heads.fit_logistic_head(rows[at["train"]][:, None], targets[at["train"]])
#         guess = head_probabilities(fitted, rows[at["test"]]).argmax(1)
#         accuracies.append(100 * np.mean(guess == elpv.labels[at["test"]]))
#     means[strategy] = np.mean(accuracies)
# lost = means["stratified"] - means["grouped"]
# ```
#
# </details>
