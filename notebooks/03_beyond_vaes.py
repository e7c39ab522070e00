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
# # Beyond VAEs: pictures that have to convince somebody
#
# A variational autoencoder (notebook 2) knows how probable a picture is, and its samples are
# blurred. This notebook shows why, lets two networks play against each other until one of them
# draws sharp digits, joins both ideas, and holds all three to one score.
#
# Every step is one claim, a few lines of code and one picture. What is derived by hand is asserted
# equal to what the library computes, wherever it is a number.
#
# Run it from top to bottom: a quarter of an hour at most on two cores. You need notebook 2, or the
# idea of an encoder, a decoder and a prior. The mathematics in full is in `docs/theory/gan.md`.

# %%
import logging
import os
import time

import keras
import numpy as np
from keras import layers
from safelight import datasets, gan, plots, scoring, vae
from safelight.gan import album, objectives
from safelight.generative.scores import score_features

SMALL = os.environ.get("SAFELIGHT_NOTEBOOK_PROFILE") == "small"  # for tests: under a minute
num_train, num_test, minutes = (1_000, 300, 0.05) if SMALL else (55_000, 10_000, 3.0)
began = time.perf_counter()
logging.getLogger("tensorflow").setLevel(logging.ERROR)
print(f"Keras {keras.__version__} on {keras.backend.backend()}")

# %%
digits, tested = (datasets.load("mnist", part=part) for part in ("train", "test"))
images, labels = gan.load_images(digits).images[:num_train], digits.labels[:num_train]
test = gan.load_images(tested).images[:num_test]
print(f"to learn from: {images.shape} {images.dtype}; to judge against: {test.shape}")
plots.plot_samples(test[:40], columns=20, title="forty digits of MNIST's test part")

# %% [markdown]
# ## 1 Why a VAE blurs
#
# A likelihood that judges pixel by pixel has an odd taste. Take an edge that may lie here or one
# pixel further, nobody knows which. Whoever has to answer with *one* picture pays least with the
# mean of both: a grey pixel, which no real picture has.

# %%
here, further = np.repeat([0.0, 1.0], [5, 5]), np.repeat([0.0, 1.0], [6, 4])
answers = {"here": here, "further": further, "blurred": (here + further) / 2}
for name, answer in answers.items():
    errors = [((answer - truth) ** 2).sum() for truth in (here, further)]
    print(f"{name:>8}: errors {errors[0]:.2f} or {errors[1]:.2f}, {np.mean(errors):.2f} on average")
strips = 0.2 + 0.5 * np.stack([np.tile(each, (6, 1)) for each in answers.values()])[..., None]
plots.plot_samples(strips, title="an edge here, an edge further, and the answer that costs least")

# %% [markdown]
# A VAE does this wherever its code leaves something open: strokes get soft ends, and a draw between
# two digits becomes a bit of both. (The best answer to its cross-entropy is the mean as well; and
# what it shows is the mean of $p(x \mid z)$, not a draw of pixels.)


# %%
def train_vae():
    # gradient="stl" has less noise: docs/theory/estimators.md
    config = vae.TrainConfig(minutes=minutes, gradient="stl")
    model = vae.build_vae(images.shape[1:], config, mean_picture=images.mean(0) / 255)
    return vae.train(model, images, config=config).model


autoencoder = train_vae()
blurred = autoencoder.sample(40, seed=1)
grey = ((blurred > 0.1) & (blurred < 0.9)).mean() / ((test > 25) & (test < 230)).mean()
print(f"{grey:.1f} times as many grey pixels as in real digits")
plots.plot_samples(blurred, columns=20, title="a VAE's samples")

# %% [markdown]
# ## 2 A judge instead of a formula
#
# So let the measure of error be learned too. A *generator* $G$ makes pictures of draws
# $z \sim \mathcal N(0, I)$. A *discriminator* $D$ sees real and generated pictures and says how
# real each looks, as a logit. It minimises the cross-entropy
#
# $$L_D = -\mathbb E_{x \sim p} \log \sigma(D(x)) - \mathbb E_{x \sim q} \log(1 - \sigma(D(x))),$$
#
# where $p$ are real pictures and $q$ what the generator makes. For every picture the best answer is
# $\sigma(D) = p / (p + q)$, that is $D(x) = \log p(x) - \log q(x)$: **the discriminator measures
# how much too rarely a picture is drawn.** Put in, and what is left is a distance of the two
# distributions, the Jensen-Shannon divergence (Goodfellow et al. 2014, arXiv 1406.2661):
#
# $$L_D^* = 2 \log 2 - 2\, \mathrm{JSD}(p, q) .$$
#
# Three kinds of pictures, drawn with known frequencies, are enough to check it.

# %%
p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])


def loss_of(answers):
    real, fake = (np.repeat(answers, np.rint(1000 * each).astype(int)) for each in (p, q))
    return float(objectives.discriminator_loss(real, fake))


best = np.log(p / q).astype("float32")
middle, loss = (p + q) / 2, loss_of(best)
divergence = 0.5 * (p * np.log(p / middle)).sum() + 0.5 * (q * np.log(q / middle)).sum()
np.testing.assert_allclose(loss, 2 * np.log(2) - 2 * divergence, rtol=1e-5)
steps = 0.1 * np.concatenate([np.eye(3), -np.eye(3)]).astype("float32")
assert all(loss_of(best + step) > loss for step in steps)  # any other answer costs more
print(f"the best discriminator's loss {loss:.4f} = 2 log 2 - 2 JSD, with JSD = {divergence:.4f}")

# %% [markdown]
# The generator, in turn, wants to be believed. It could maximise the same loss, but where the
# discriminator is sure, $\log(1 - \sigma(D))$ is flat: nothing to learn. Minimising
# $-\log \sigma(D(G(z)))$ has the same aim, and its slope does not vanish.

# %%
for logit in (-8.0, 0.0):
    of_fake = 1 / (1 + np.exp(-logit))  # sigma(D)
    low, high = (float(objectives.generator_loss(np.float32([logit + d]))) for d in (-0.01, 0.01))
    np.testing.assert_allclose((low - high) / 0.02, 1 - of_fake, atol=1e-3)
    falls = f"log(1 - sigma) falls by {of_fake:.4f}, -log sigma by {1 - of_fake:.4f}"
    print(f"at D = {logit:+.0f}, for each unit of D: {falls}")

# %% [markdown]
# ## 3 The game, seen
#
# Before pictures, points: eight heaps on a ring. A point is a picture of two channels, so that the
# library's own training plays the game; the networks are ours, since any will do that have the
# right inputs and outputs.

# %%
rng = np.random.default_rng(0)
angles = 2 * np.pi * rng.integers(8, size=8_000) / 8
ring = 80 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + 128
ring += 4 * rng.normal(size=ring.shape)
points = np.rint(ring).astype("uint8").reshape(-1, 1, 1, 2)


def dense(x, *widths):
    for width in widths:
        x = layers.Dense(width, "relu")(x)
    return x


def make_players():
    z, point = keras.Input((2,)), keras.Input((1, 1, 2))
    made = layers.Reshape((1, 1, 2))(layers.Dense(2, "sigmoid")(dense(z, 64, 64)))
    seen = dense(layers.Rescaling(2.0, -1.0)(layers.Flatten()(point)), 64, 64)
    judge = keras.Model(point, [layers.Dense(1)(seen), seen])
    return gan.GAN(keras.Model(z, made), judge)


weights = make_players().count_params()
print(f"{len(points):,} points on eight heaps, {weights:,} weights of both players")


# %%
def play(epochs, seed=0, **settings):
    keras.utils.set_random_seed(seed)
    # Sections 4 and 5 explain averaged weights and spectral kernels; they keep a small game calm.
    calm = {"normalization": "spectral", "augmentation": "none", "weight_average": 0.99}
    shared = {"latent_dim": 2, "batch_size": 256, **calm, **settings}
    config = gan.TrainConfig(epochs=epochs, seed=seed, **shared)
    return gan.train(make_players(), points, config=config).model


def look_at(model, epochs):
    drawn = 255 * model.generate(800, seed=1).reshape(-1, 2)
    shown = np.concatenate([ring[:800], drawn]) / 50 - 2.5
    figure = plots.plot_latent_scatter(
        shown, np.repeat([0, 1], 800), class_names=["real", "drawn"], show_prior=False
    )
    title = f"points, real and drawn, after {epochs} epochs"
    figure.axes[0].set(title=title, xlabel="", ylabel="")
    return figure


short, long = (5, 20) if SMALL else (20, 300)
look_at(play(short), short)

# %% [markdown]
# That was a short game. A long one, begun with the same weights, finds where real points are. The
# generator does not see them: all it ever learns from is which way the discriminator would have
# believed it more.

# %%
player = play(long)
look_at(player, long)

# %% [markdown]
# How many of the eight heaps does it draw? That is the question to ask of every generator. One that
# draws a single heap *perfectly* wins until the discriminator has noticed, by section 2, that this
# heap comes eight times too often; then it may just move on to the next: **mode collapse**.


# %%
def heaps_of(model):
    drawn = 255 * model.generate(2000, seed=2).reshape(-1, 2) - 128
    number = np.rint(np.arctan2(drawn[:, 1], drawn[:, 0]) / (2 * np.pi / 8)).astype(int) % 8
    turn = 2 * np.pi * number / 8
    middle = 80 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    near = np.hypot(*(drawn - middle).T) < 16  # four deviations of a heap
    return np.bincount(number[near], minlength=8) / len(drawn)


shares = heaps_of(player)
print("share of draws in each heap:", np.round(shares, 3))
print(f"{(shares > 0.02).sum()} of 8 heaps are drawn; {1 - shares.sum():.1%} lie between them")

# %% [markdown]
# ## 4 Digits
#
# The same game with convolutions (DCGAN, Radford et al. 2016, arXiv 1511.06434). Both networks have
# *batch normalization*, which gives each feature mean 0 and variance 1 over a batch; in the
# discriminator real and drawn digits are separate batches. The generator that is kept has the
# average of its weights over many steps.

# %%
config = gan.TrainConfig(minutes=minutes)
game = gan.train(gan.build_gan(images.shape[1:], config), images, config=config)
drawn = game.model.generate(40, seed=1)
grey = ((drawn > 0.1) & (drawn < 0.9)).mean() / ((test > 25) & (test < 230)).mean()
print(
    f"{game.images_per_second:,.0f} images a second, {grey:.1f} times as many grey pixels as real"
)
plots.plot_samples(drawn, columns=20, title="a GAN's samples, after as many minutes")

# %% [markdown]
# The losses say little: each is measured against an opponent that learns as well. Nor need it alarm
# that the discriminator is right nearly always in the end (left): the generator's loss is not flat
# there, by section 2. What to watch is whether what is drawn stays as varied as real pictures
# (right: 1), and whether pictures still improve.

# %%
plots.plot_game_history(game.history)

# %% [markdown]
# The latent space is one to walk in, as a VAE's is. Walks go along arcs: in 32 dimensions draws lie
# near a sphere, and a straight line would cut through its empty inside (White 2016, arXiv
# 1609.04468).

# %%
album.draw_walks(game.model, 4, seed=3)

# %% [markdown]
# But there is no way back: a GAN cannot say which $z$ a picture has, nor how probable it is.
#
# ## 5 A bit of both
#
# A VAE/GAN (Larsen et al. 2016, arXiv 1512.09300) keeps the encoder and lets the discriminator
# measure: reconstructions are compared not pixel by pixel but by what its last convolution sees, to
# which a stroke is a stroke even where it is moved a little. What it sees of one picture must not
# depend on others here. So instead of batch normalization its kernels are divided by their largest
# singular value (Miyato et al. 2018, arXiv 1802.05957), so that it cannot be arbitrarily steep.

# %%
config = gan.TrainConfig(minutes=minutes, autoencoder=True)
both = gan.train(gan.build_gan(images.shape[1:], config), images, config=config)
plots.plot_reconstructions(test[:10], both.model.reconstruct(test[:10]))

# %%
plots.plot_reconstructions(test[:10], autoencoder.reconstruct(test[:10]))

# %% [markdown]
# Above the VAE/GAN, below the VAE; their errors in pixels are in the titles (the VAE has forty
# latents, the other 32). Which is *better* depends on what is asked: the VAE is made to be near in
# pixels, and has a likelihood; to the eye the other's strokes are crisper. Ten pictures prove
# neither.
#
# ## 6 One score for all
#
# Likelihoods cannot compare them, since only one of them has any. Features can: a classifier of
# digits turns pictures into vectors, and two clouds of vectors can be compared.
#
# * **Frechet distance** of their means and covariances (Heusel et al. 2017, arXiv 1706.08500),
#   $\|m - m'\|^2 + \mathrm{tr}(C + C' - 2 (C C')^{1/2})$, by custom without a root. That of samples
#   is too large, by a term in $1/n$ (Chong & Forsyth 2020, arXiv 1911.07023); a jackknife takes it
#   off and gives an interval. So a small distance, of few pictures, may come out negative.
# * **Precision**: the share of drawn pictures that lie no further from some real one than its fifth
#   nearest real neighbour does; **recall**: the same with both sides exchanged (Kynkaanniemi et al.
#   2019, arXiv 1904.06991).
# * The row *real* are pictures of the training part, as if somebody had drawn them: what is left to
#   reach. Its distance is not 0, since they are other digits than the test's, and the features were
#   learned from them.
# * **Copies**: is a drawing nearer to a picture that was learned from (here: to one of the first
#   20,000) than 99 % of unseen ones are? One in a hundred is what new pictures give. More means
#   learned by heart; fewer is no merit, only that drawings come less near to anything real.

# %%
features = scoring.choose_features(images, labels, drawn=True)
models = {"VAE": autoencoder.sample, "GAN": game.model.generate, "VAE/GAN": both.model.generate}
samples = {name: np.clip(draw(len(test), seed=5), 0, 1) for name, draw in models.items()}
known, real = features.extract(images[:20_000]), features.extract(test)
scores = {name: score_features(known, real, features.extract(x)) for name, x in samples.items()}
some = np.random.default_rng(0).permutation(len(images))[: len(test)]
scores["real"] = score_features(None, real, features.extract(images[some]))
for name, each in scores.items():
    print(f"{name:>8}: Frechet {each.frechet}, precision {each.precision}, recall {each.recall}")
    print(f"{'':>10}copies {each.copies or 'not asked: these were learned from'}")

# %%
plots.plot_generators([("real", test[:14]), *((name, x[:14]) for name, x in samples.items())])

# %% [markdown]
# Look at pictures and numbers together: precision sees no blur. In these features a blurred digit
# lies among real ones, and the VAE's stand well by it. Nor is its Frechet distance blur alone: many
# draws of $\mathcal N(0, I)$ fall where no picture is encoded (notebook 2). With a prior that
# learns where codes lie (`prior="flow"`) a VAE comes near to the GAN (README, digits after two
# minutes). The VAE/GAN draws from $\mathcal N(0, I)$, too, and has two tasks in as many minutes.
#
# A number without its features means nothing: other features, other distances. And the bias is no
# detail. Take a fiftieth of the pictures, at random, and the plain distance grows though nothing
# else changed:

# %%
mixed = np.random.default_rng(1).permutation(len(test))  # the first digits of the file are easier
few = [
    score_features(known, real[np.sort(mixed[:n])], features.extract(samples["GAN"][:n]))
    for n in (200, len(test))
]
for each in few:
    plain = f"as counted {each.frechet_plain:.2f}"
    print(f"{each.num_fake:>6} pictures: {plain}, without bias {each.frechet}")
assert SMALL or few[0].frechet_plain > few[1].frechet_plain + 0.5
assert few[0].frechet.low < few[1].frechet.high
assert few[1].frechet.low < few[0].frechet.high
print(f"from top to bottom: {(time.perf_counter() - began) / 60:.1f} minutes")

# %% [markdown]
# On the command line this is `safelight compare RUN...`, for runs of any kind; `safelight gan train
# FOLDER --output RUN` trains on your own pictures.
#
# What is each for? A **VAE** to know how probable a picture is, to look into its latents, to find
# odd pictures. A **GAN** to draw. A **VAE/GAN** to change real pictures, with crisper strokes than
# a VAE's.
#
# ## 7 Exercises
#
# Put your values in place of `None` and run the cell; it says whether you are right. Solutions are
# folded below.
#
# 1. Two Gaussians in one dimension, $N(0, 1)$ and $N(3, 4)$ (variance 4). What is their Frechet
#    distance?
# 2. A picture is drawn twice as often by the generator as it really occurs. What does the best
#    discriminator answer, as a probability of being real?
# 3. The generator draws exactly the real distribution. What is the discriminator's best loss?
# 4. A generator hands out pictures of `images[:20_000]`, among which copies are sought. What share
#    of them is called a copy? (Of new pictures it is .01.)

# %%
frechet, answer, best_loss, copied = None, None, None, None


def check(question, yours, expected, tolerance):
    right = yours is not None and abs(yours - expected) <= tolerance
    verdict = f"expected {expected:,} ± {tolerance}: right" if right else "not yet"
    print(f"{question}: your value {yours}, {verdict}")


check("1 Frechet distance", frechet, 10.0, 0.01)
check("2 probability", answer, 0.3333, 0.001)
check("3 best loss", best_loss, 1.3863, 0.001)
check("4 share of copies", copied, 1.0, 0.02)

# %% [markdown]
# <details>
# <summary>Solutions</summary>
#
# ```python
# # 1. The shift squared, and in one dimension the difference of the deviations squared.
# frechet = 3**2 + (2 - 1) ** 2
#
# # 2. p / (p + q), with q twice p.
# answer = 1 / (1 + 2)
#
# # 3. Nothing to be told apart: both answers cost log 2.
# best_loss = 2 * np.log(2)
#
# # 4. They are at distance 0 from a picture that was learned from.
# copied = score_features(known, real, known[: len(real)]).copies.value
# ```
#
# </details>
#
# ## Sources
#
# * I. Goodfellow et al., *Generative adversarial nets*, NeurIPS 2014, arXiv 1406.2661
# * A. Radford, L. Metz, S. Chintala, *DCGAN*, ICLR 2016, arXiv 1511.06434
# * T. Miyato et al., *Spectral normalization*, ICLR 2018, arXiv 1802.05957
# * A. Larsen et al., *Autoencoding beyond pixels*, ICML 2016, arXiv 1512.09300
# * M. Heusel et al., *Two time-scale update rule*, NeurIPS 2017, arXiv 1706.08500 (the Frechet
#   distance of features)
# * T. Kynkaanniemi et al., *Improved precision and recall*, NeurIPS 2019, arXiv 1904.06991
# * M. Chong, D. Forsyth, *Effectively unbiased FID*, CVPR 2020, arXiv 1911.07023
# * T. White, *Sampling generative networks*, 2016, arXiv 1609.04468
