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
# # Variational autoencoders: from a few numbers to a digit, and back
#
# Squeeze a picture through two numbers and unfold it again: what the network in the middle has to
# keep is what pictures *are made of*. A variational autoencoder does that with probabilities, so
# that it can also say how likely a picture is, and draw new ones.
#
# Every step is one claim, a few lines of code and one picture. What we derive by hand is asserted
# equal to what the library computes, so little here has to be believed.
#
# Run it from top to bottom: five to fifteen minutes on two cores. You need Python, NumPy, the
# normal distribution and the idea of a gradient. The derivations in full are in
# `docs/theory/elbo.md`. The exercises at the end check themselves.

# %%
import logging
import os
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from safelight import datasets, metrics, plots, vae
from safelight.vae import evaluation, objectives
from scipy.special import logsumexp

SMALL = os.environ.get("SAFELIGHT_NOTEBOOK_PROFILE") == "small"  # for tests: under a minute
num_train, num_test, epochs, long = (2_000, 300, 15, 15) if SMALL else (55_000, 10_000, 12, 40)
began = time.perf_counter()
logging.getLogger("tensorflow").setLevel(logging.ERROR)
print(f"Keras {keras.__version__} on {keras.backend.backend()}")

# %%
digits = datasets.load("mnist", part="train")
pixels, labels = vae.load_images(digits).images, digits.labels
images, held_out = pixels[:-5_000][:num_train], pixels[-5_000:]
tested = datasets.load("mnist", part="test")
test, test_labels = vae.load_images(tested).images[:num_test], tested.labels[:num_test]
mean_picture = images.mean(0) / 255
print(f"to train on: {images.shape} {images.dtype}; to judge on: {test.shape}")
plots.plot_samples(test[:40], columns=20, title="forty digits of MNIST's test part")

# %% [markdown]
# ## 1 An autoencoder has holes
#
# An *autoencoder* learns two networks: the encoder turns a picture into a few numbers, its *code*,
# the decoder turns a code into a picture. All it is trained for is that the picture comes back.
#
# Nothing is asked of the codes themselves, and so nothing is known of them: they may lie anywhere,
# in islands far out, with empty space between. Whoever wants a *new* picture has to guess a code.
# (We train it as the limit of what follows, with the second term of the objective switched off:
# `beta=0`.)


# %%
def train(latent_dim, watched_by=None, **settings):
    config = vae.TrainConfig(latent_dim=latent_dim, **{"epochs": epochs, **settings})
    model = vae.build_vae(images.shape[1:], config, mean_picture=mean_picture)
    return vae.train(model, images, validation=held_out, config=config, callback=watched_by)


autoencoder = train(2, beta=0.0).model
codes = autoencoder.encode(test)[0]
outside = np.mean((codes**2).sum(1) > -2 * np.log(0.05))
print(f"{outside:.0%} of the codes lie where N(0, I) puts 5 %")
assert outside > 0.2
plots.plot_latent_scatter(codes[:3000], test_labels[:3000])

# %% [markdown]
# Guess codes from $\mathcal N(0, I)$, and the islands outside the dashed circle are hardly ever
# drawn: one draw in twenty lies outside, and near it. Between the other islands lie blends that no
# digit was ever encoded as.

# %%
plots.plot_samples(autoencoder.sample(40, seed=1), columns=20, title="an autoencoder's guesses")

# %% [markdown]
# ## 2 A model with a probability
#
# So let us say first how pictures come about: draw a code from a known distribution, the *prior*
# $p(z) = \mathcal N(0, I)$, then a picture from $p(x \mid z)$, whose parameters the decoder gives.
# For black and white pixels it says how likely each is white. (MNIST is grey: whenever a digit is
# seen, each pixel is drawn white with its grey value as probability, *dynamic binarisation*. And
# what we look at are the decoder's probabilities, not draws of them; hence the soft edges.) Then
# every picture has a probability, and a good model is one under which real pictures are probable:
#
# $$\log p(x) = \log \int p(x \mid z)\, p(z)\, dz .$$
#
# The integral is the trouble: next to no $z$ explains a given $x$. The *encoder* helps to find
# those: it proposes $q(z \mid x) = \mathcal N(\mu(x), \mathrm{diag}\,\sigma^2(x))$. Put $q$ in and
# move the concave logarithm inside the mean (Jensen's inequality):
#
# $$\log p(x) = \log \mathbb E_{q}\!\left[\frac{p(x \mid z)\, p(z)}{q(z \mid x)}\right] \ \ge\
# \mathbb E_q\!\left[\log \frac{p(x \mid z)\, p(z)}{q(z \mid x)}\right]
# = \underbrace{\mathbb E_q[\log p(x \mid z)]}_{\text{reconstruction}}
# - \underbrace{\mathrm{KL}(q(z \mid x) \,\|\, p(z))}_{\text{price of the code}} .$$
#
# This is the *evidence lower bound*, ELBO (Kingma & Welling 2014, arXiv 1312.6114; Rezende et al.
# 2014, arXiv 1401.4082). The second term is a *Kullback-Leibler divergence*, KL: the mean of
# $\log q - \log p$ under $q$, never negative, and 0 only if the two are equal. All is in *nats*
# (bits, with the natural logarithm) per picture: a *sum* over pixels and over the code's numbers,
# the *latent units*.
#
# For Gaussians the second term needs no draws, $\mathrm{KL} = \tfrac12 \sum_j (\mu_j^2 + \sigma_j^2
# - 1 - \log \sigma_j^2)$. We believe it once a million draws agree.

# %%
rng = np.random.default_rng(0)
mu, log_var = np.array([0.5, -1.0]), np.array([-2.0, 0.3])
z = mu + np.exp(log_var / 2) * rng.standard_normal((1_000_000, 2))
log_q = -0.5 * ((z - mu) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi)).sum(1)
log_p = -0.5 * (z**2 + np.log(2 * np.pi)).sum(1)
closed = 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum()
error = np.std(log_q - log_p) / len(z) ** 0.5
print(f"KL: {closed:.4f} nats in closed form, {np.mean(log_q - log_p):.4f} from draws")
assert abs(closed - np.mean(log_q - log_p)) < 4 * error
np.testing.assert_allclose(objectives.kl_divergence(mu, log_var), closed, rtol=1e-5)

# %% [markdown]
# ## 3 How a gradient passes through a draw
#
# The decoder's gradient is no problem. The encoder's is: $z$ is *drawn*, with parameters that we
# want to learn, and a draw has no derivative. There are two ways round, and both are right on
# average:
#
# * the *score function*: $\nabla_\mu \mathbb E_q[f(z)] = \mathbb E_q[f(z)\, \nabla_\mu \log q(z)]$,
#   which needs no more than values of $f$;
# * *reparameterization*: draw the noise instead. With $z = \mu + \sigma \varepsilon$,
#   $\varepsilon \sim \mathcal N(0, 1)$, the draw stands apart from the parameters, and
#   $\nabla_\mu \mathbb E_q[f(z)] = \mathbb E_\varepsilon[f'(\mu + \sigma \varepsilon)]$.
#
# On a toy, $f(z) = z^2$ at $\mu = 0, \sigma = 1$, the true gradient is 0, and the variances of one
# draw can be worked out: 15 and 4.

# %%
noise = rng.standard_normal(1_000_000)
score, reparameterized = noise**2 * noise, 2 * noise
print(f"variance on the toy: score function {score.var():.1f}, ours {reparameterized.var():.1f}")
np.testing.assert_allclose([score.var(), reparameterized.var()], [15, 4], rtol=0.05)

# %% [markdown]
# The toy is kind. On a real model, with $f(z) = \log p(x \mid z)$ of a digit, values are in the
# hundreds and slopes are not. So first a real model: two latent units, twelve epochs. It is a Keras
# model: `compile` and `fit` train it, too. `vae.train` runs whole epochs in one compiled function,
# lets the learning rate fall, and averages the weights. Look on while it does: below, the test
# part's digits find their places in the latent plane, and what comes back of them gets sharper.

# %%
plain = vae.build_vae(images.shape[1:], vae.TrainConfig(latent_dim=2), mean_picture=mean_picture)
plain.compile(keras.optimizers.Adam(1e-3))
fitted = plain.fit(images, epochs=2, batch_size=128, verbose=0)
view = vae.LiveView(test, test_labels)
trained = train(2, watched_by=view)
model = trained.model
print("ELBO after two epochs of fit:", np.round(fitted.history["elbo"], 1))
print(f"train: {trained.images_per_second:,.0f} images/s, ELBO {trained.history['elbo'][-1]:.1f}")
assert trained.history["val_elbo"][-1] > trained.history["val_elbo"][0]
plots.plot_elbo_history(trained.history)

# %% [markdown]
# The ELBO by hand: encode, draw, decode, add up. It is what the model says of itself. (Digits are
# cut at one half here and in the next section, so that nothing about them is drawn. They are easier
# than drawn ones, so these numbers are higher than the same model's on drawn ones, as above.)

# %%
x = (test > 127).astype("float32")
mean, log_variance = (ops.convert_to_numpy(part) for part in model.encoder(x))
noise = rng.standard_normal(mean.shape).astype("float32")
logits = ops.convert_to_numpy(model.decoder(mean + np.exp(log_variance / 2) * noise))
reconstruction = (x * logits - np.logaddexp(0, logits)).sum((1, 2, 3))
kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
terms = model.terms(x, noise=noise)
_, said = model.objective(terms)
elbo = float(said["elbo"])
print(f"ELBO {elbo:.2f} = reconstruction {reconstruction.mean():.2f} - KL {kl.mean():.2f}")
np.testing.assert_allclose(elbo, (reconstruction - kl).mean(), rtol=1e-4)

# %% [markdown]
# Now the gradient of one digit's reconstruction with respect to the first number of $\mu$, a
# thousand times from one draw each. The score function even gets help, its best-known remedy: the
# mean of $f$ is subtracted as a *baseline*, which changes nothing on average. (Errors are standard
# errors.)

# %%
draws = rng.standard_normal((1000, 2)).astype("float32")
sigma = np.exp(log_variance[0] / 2)
codes = tf.constant(mean[0] + sigma * draws)
with tf.GradientTape() as tape:
    tape.watch(codes)
    values = objectives.bernoulli_log_likelihood(x[:1], model.decoder(codes))
slopes = tape.gradient(values, codes).numpy()[:, 0]
by_score = (values.numpy() - values.numpy().mean()) * draws[:, 0] / sigma[0]
means = [f"{g.mean():.1f} (error {g.std() / len(g) ** 0.5:.1f})" for g in (by_score, slopes)]
ratio = by_score.var() / slopes.var()
print(f"mean: {' and '.join(means)}; {ratio:.1f} times the variance")
assert ratio > 2
figure = plots.Picture(figsize=(8, 2.8), layout="constrained")
names = ("score function with baseline", "reparameterization")
for ax, gradient, name in zip(figure.subplots(1, 2), (by_score, slopes), names, strict=True):
    ax.hist(gradient, bins=np.linspace(*np.quantile(by_score, [0.005, 0.995]), 60))
    ax.set(title=f"{name}: variance {gradient.var():,.0f}", xlabel="one draw's gradient")
figure

# %% [markdown]
# ## 4 How far below? The gap is a divergence
#
# Split the ELBO the other way:
# $\mathrm{ELBO} = \log p(x) - \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$. So the bound is loose
# by exactly as much as the proposal differs from the *true posterior* $p(z \mid x)$, the codes that
# explain the picture. With two latent units we can look at it: compute $p(x \mid z)\, p(z)$ on a
# fine grid. Its sum, times the area of a cell, is $p(x)$ itself, and each cell's share of it is the
# true posterior. To the left the truth, to the right the encoder's Gaussian (square roots of both,
# so that tails show); first the digit of the median gap, then that of the largest. The ELBO of the
# grid has to be the one that the library's draws give.

# %%
side = np.linspace(-4, 4, 60 if SMALL else 320, dtype="float32")
area, num = (side[1] - side[0]) ** 2, 100
grid = np.stack(np.meshgrid(side, side[::-1]), -1).reshape(-1, 2)
flat, log_joint = x[:num].reshape(num, -1), []
for part in np.array_split(grid, 20):
    logit = ops.convert_to_numpy(model.decoder.predict_on_batch(part)).reshape(len(part), -1)
    log_prior = -0.5 * (part**2).sum(1) - np.log(2 * np.pi)
    log_joint.append(logit @ flat.T + (log_prior - np.logaddexp(0, logit).sum(1))[:, None])
log_joint = np.concatenate(log_joint).T
exact = logsumexp(log_joint, axis=1) + np.log(area)
squares = (grid - mean[:num, None]) ** 2 / np.exp(log_variance[:num, None])
log_q = -0.5 * (squares + log_variance[:num, None] + np.log(2 * np.pi)).sum(2)
width = np.exp(log_variance[:num] / 2).min(1)
inside = np.abs(mean[:num]).max(1) + 4 * np.exp(log_variance[:num] / 2).max(1) < 4
print(f"{len(grid):,} latents decoded; {inside.sum()} of {num} proposals lie inside the grid")

# %%
fine = inside & (width > 0.8 * (side[1] - side[0]))  # where the grid resolves the proposal
weight = np.exp(log_q[fine]) * area
bound = (weight * (log_joint[fine] - log_q[fine])).sum(1)
gap = (weight * (log_q[fine] - log_joint[fine] + exact[fine, None])).sum(1)
print(f"{fine.sum()} digits: log p(x) {exact[fine].mean():.2f}, ELBO {bound.mean():.2f}, ", end="")
print(f"KL from the true posterior {gap.mean():.2f} nats")
np.testing.assert_allclose(weight.sum(1), 1, atol=1e-3)
drawn = ops.convert_to_numpy(model.terms(x[:num], num_samples=500)["log_weights"])[:, fine]
error = (drawn.var(0).mean() / drawn.size) ** 0.5
print(f"ELBO from the library's draws {drawn.mean():.2f}, standard error {error:.2f}")
assert abs(bound.mean() - drawn.mean()) < 4 * error + 0.01
assert np.all(gap > -0.1)

# %%
panels, titles = [], []
for i in np.flatnonzero(fine)[np.argsort(gap)[[len(gap) // 2, -1]]]:
    pair = [np.exp(v - v.max()).reshape(len(side), -1) for v in (log_joint[i], log_q[i])]
    places = np.argwhere(np.maximum(*pair) > 0.01)  # cut out where there is something to see
    low, high = places.min(0), places.max(0)
    half = max(20, (high - low).max() // 2 + 6)
    top, left = np.maximum((low + high) // 2 - half, 0)
    panels += [np.sqrt(p[top : top + 2 * half, left : left + 2 * half]) for p in pair]
    titles += [f"digit {test_labels[i]}: {name}" for name in ("true posterior", "proposal")]
plots.plot_image_grid(panels, titles=titles, columns=4)

# %% [markdown]
# There is a way up: take $k$ draws and the logarithm of the mean of their *weights*, the fractions
# below (Burda et al. 2016, arXiv 1509.00519),
#
# $$\mathcal L_k = \mathbb E \log \frac1k \sum_{i=1}^k \frac{p(x \mid z_i)\, p(z_i)}{q(z_i \mid x)},
# \qquad \mathrm{ELBO} = \mathcal L_1 \le \mathcal L_2 \le \dots \le \log p(x) .$$
#
# This is *importance sampling*. With thousands of draws it is the number by which models are
# compared (some hundreds do for a look), and on the digits inside the grid we know where the ladder
# ends.

# %%
ks, seen = [1, 3, 10, 100, 1000], (255 * x[:num]).astype("uint8")[inside]
ladder = [
    vae.estimate_log_likelihood(model, seen, num_importance_samples=k, precision="float32")
    for k in ks
]
bounds, missing = [step.mean for step in ladder], exact[inside] - ladder[-1].values
print("bounds:", np.round(bounds, 2), f"exact: {exact[inside].mean():.2f}")
print(f"missing at k = 1000: {np.median(missing):.3f} nats for the median digit, ", end="")
print(f"more than one nat for {np.mean(missing > 1):.0%} of the digits")
assert bounds[0] < bounds[2] < bounds[4] + 0.05
assert abs(np.median(missing)) < (1 if SMALL else 0.1)
plots.plot_bounds(ks, bounds, exact=exact[inside].mean())

# %% [markdown]
# For most digits a thousand draws arrive. For some they never will in practice: the plane has
# another place that explains the digit *better*, the proposal knows of the worse one only, and no
# draw goes there. (Who sees a share $r$ of $p(x)$ misses $-\log r$ nats: more than one nat means
# that over 63 % of $p(x)$ lies elsewhere.) An estimate by importance sampling is no better than its
# proposal. It is too *low* on average, so that it does not flatter the model.

# %% [markdown]
# ## 5 What the two numbers mean
#
# Nothing told the model what a digit is. Yet many digits have a region of their own, while those
# that look alike, such as 4 and 9, share one. And all codes lie far nearer to the prior than an
# autoencoder's, if not without gaps: the KL term charges for every nat that a code says, so the
# model packs them densely.

# %%
codes = model.encode(test)[0]
outside = np.mean((codes**2).sum(1) > -2 * np.log(0.05))
print(f"{outside:.1%} of the codes lie where N(0, I) puts 5 %")
assert outside < 0.3
plots.plot_latent_scatter(codes[:3000], test_labels[:3000])

# %% [markdown]
# The view that we looked on through has kept its moments. This cell writes them beside the
# notebook, as a film; here is an early one.

# %%
film = view.save_film("latent_space.gif")
print(f"{len(view.frames)} moments are in {film}")
view.figure(len(view.frames) // 4)

# %% [markdown]
# And the map: the plane decoded, each picture for an equal share of the prior.

# %%
plots.plot_latent_manifold(evaluation.latent_manifold(model, num=12))

# %% [markdown]
# ## 6 The most frequent mistake
#
# "Loss = reconstruction error + KL", where the error is a *mean* over pixels (the framework's
# default) and the KL a sum over units: this is in many tutorials. A mean over 784 pixels makes the
# reconstruction 784 times too cheap, which is the same as a KL term 784 times too dear: `beta=784`,
# where `beta` is a weight of the KL term and 1 gives the ELBO. (Who averages the KL as well, over
# $d$ units, has $784/d$.) The model does what it is told: a code costs more than it is worth, so it
# sends none. All pictures become one.
#
# A unit is called *active* if its mean varies from picture to picture, by a variance above 0.01.
# (The library warns of what it sees below, and names three cures; here the last one, `beta=1`, is
# it.)

# %%
mistaken = train(2, beta=784.0).model
told = evaluation.active_units(mistaken.encode(test)[0]).sum()
print(f"{told} of 2 latent units say anything about the picture")
assert told == 0
few = test[:9]
plots.plot_reconstructions(np.tile(few, (2, 1, 1, 1)), np.concatenate(
    [mistaken.reconstruct(few), model.reconstruct(few)]), columns=9)  # fmt: skip

# %% [markdown]
# Above with the mistake, below without. The test for your own code: the sum must be over pixels and
# latent units, the mean over pictures only, and the KL of a working MNIST model is several nats
# (some six with two units, four times that with twenty), not a hundredth of one.
#
# ## 7 Twenty numbers
#
# Two numbers are for looking. With twenty, and forty epochs, the pictures get sharp; the report has
# every number with an interval, and says how it was made.

# %%
larger = train(20, epochs=long)
report = vae.evaluate(
    larger.model, (test, test_labels), train=(images, labels[:num_train]),
    num_importance_samples=200, num_images=min(1000, num_test),
)  # fmt: skip
print(f"ELBO {report.elbo}, KL {report.kl}, {report.active_units} of 20 units active")
print(f"log p(x) {report.log_likelihood}, standard error {report.estimate.standard_error:.2f}")
print(report.protocol["log_likelihood"])
assert report.elbo.value < report.log_likelihood.value < 0
plots.plot_reconstructions(test[:10], larger.model.reconstruct(test[:10]))

# %%
plots.plot_samples(larger.model.sample(40, seed=1), columns=20, title="draws of N(0, I)")

# %% [markdown]
# Some samples are no digits: the prior has room between the codes that the model actually uses, and
# in twenty dimensions much of it. So let the *prior* learn where codes are: a mixture of Gaussians
# in the place of $\mathcal N(0, I)$, its weights, means and variances trained with all the rest.
# Nothing else changes, except that the KL has no closed form any more, and is estimated as we did
# it in section 2, $\log q(z \mid x) - \log p(z)$ at a draw. A higher ELBO might only be a tighter
# bound, so we also compare $\log p(x)$, of the same digits.

# %%
learned = train(20, epochs=long, prior="mixture")
for name, each in (("N(0, I)", larger), ("a mixture", learned)):
    print(f"prior {name}: ELBO {each.history['val_elbo'][-1]:.2f} nats on held-out digits")
assert learned.history["val_elbo"][-1] > larger.history["val_elbo"][-1] or SMALL
twice = [
    vae.estimate_log_likelihood(each.model, test[:1000], num_importance_samples=200).values
    for each in (larger, learned)
]
gain = metrics.mean_intervals({"gain": twice[1] - twice[0]})["gain"]
print(f"log p(x) of {len(twice[0])} test digits: the mixture gives {gain} nats more")
plots.plot_samples(learned.model.sample(40, seed=1), columns=20, title="draws of what it learned")

# %% [markdown]
# More probable digits, and to the eye better samples. `docs/theory/priors.md` has two more priors
# (Tomczak & Welling 2018, arXiv 1705.07120, and a flow), and `docs/theory/surgery.md` measures the
# room.
#
# Between two real digits we know better where to walk. A straight line passes nearer to the origin
# than nearly all draws of $\mathcal N(0, I)$ lie; the *arc* keeps its distance (White 2016, arXiv
# 1609.04468).

# %%
ends = larger.model.encode(test[:4])[0]
ways = {
    "linear": vae.interpolate(larger.model, ends[:2], ends[2:], num=9),
    "spherical": vae.interpolate(larger.model, ends[:2], ends[2:], num=9, spherical=True),
}
np.testing.assert_allclose(ways["linear"][:, 0], larger.model.reconstruct(test[:2]), atol=1e-4)
print(f"largest difference on the way: {np.abs(ways['linear'] - ways['spherical']).max():.2f}")
plots.plot_interpolation(ways, originals=(test[:2], test[2:4]))

# %% [markdown]
# ## 8 Is it a better summary than principal components?
#
# PCA also gives twenty numbers per picture, the best ones for a *linear* decoder. Two simple
# readers try to tell the digit from either: logistic regression (what can be read off linearly) and
# five nearest neighbours (whether equal digits lie together).

# %%
probes = report.probes
found = {
    "VAE, linear": probes.latent_linear, "PCA, linear": probes.pca_linear,
    "VAE, neighbours": probes.latent_neighbors, "PCA, neighbours": probes.pca_neighbors,
}  # fmt: skip
for name, accuracy in found.items():
    print(f"{name:16s} {metrics.format_percent(accuracy)}")
assert min(accuracy.value for accuracy in found.values()) > 0.4
plots.plot_intervals(found, label="accuracy (%) from twenty numbers, with 95 % interval")

# %% [markdown]
# Read linearly the two are level: nobody asked the VAE to put the classes on two sides of a plane.
# Neighbours are of one digit a little more often in its space, which would fit with distances that
# are measured in what matters to a picture; but where the intervals overlap, these digits do not
# settle it.
#
# ## 9 Collapse, made on purpose and cured
#
# A latent unit that says less than it costs is dropped: its $q$ becomes the prior, the decoder
# learns to ignore it, and from then on no gradient asks it back. A little of that is right (a model
# need not use all units). Too much is *posterior collapse*. We make it by paying ten times the
# price, `beta=10` (Higgins et al. 2017 raise it on purpose, to have units mean one thing each), and
# cure it with *free bits* (Kingma et al. 2016, arXiv 1606.04934): the first half nat of each unit
# costs nothing, so none is driven to silence. (The pictures below count a unit as active by another
# sign, a KL above 0.01 nats.)

# %%
collapsed, cured = train(20, beta=10.0), train(20, beta=10.0, free_bits=0.5)
active = []
for name, other in (("beta=10", collapsed), ("with free bits", cured)):
    active.append(int(evaluation.active_units(other.model.encode(test)[0]).sum()))
    bound, price = (other.history[f"val_{part}"][-1] for part in ("elbo", "kl"))
    print(f"{name}: {active[-1]} of 20 units active, KL {price:.1f}, ELBO {bound:.1f} nats")
before = np.array(larger.history["val_elbo"])  # NaN where nobody looked
at = np.flatnonzero(np.isfinite(before[:epochs]))[-1]
print(f"beta=1, section 7: {before[at]:.1f} in epoch {at + 1}, {before[-1]:.1f} at last")
assert active[0] < active[1] or SMALL
plots.plot_kl_per_unit(collapsed.history_kl)

# %%
plots.plot_kl_per_unit(cured.history_kl)

# %% [markdown]
# The judge is the ELBO with its true weights, on pictures that were held out. By it the cure is far
# better than the disease, and both are worse than what never fell ill: a unit that is *made* to
# speak says its free half nat and little more, whether or not it has something to say. Where the
# price is right, leave it at that.
#
# ## 10 Another kind of picture
#
# The same for your own pictures, without Python: `safelight vae train FOLDER --output RUN`. For
# grey or coloured photographs pixels are no coin tosses, and another likelihood is taken, the
# *discretised logistic*, a probability for each of the 256 levels (Salimans et al. 2017, arXiv
# 1701.05517). Solar cells at 32 pixels; neighbours in the list mostly come from one module, so
# blocks of them are kept together (notebook 1, exercise 4):

# %%
parts = datasets.split(datasets.load("elpv"), strategy="grouped", validation_fraction=0)
cells, unseen = (vae.load_images(part, (32, 32)).images for part in (parts.train, parts.test))
config = vae.TrainConfig(
    latent_dim=16, likelihood="discretized_logistic", epochs=5 if SMALL else 60, batch_size=64
)
grey = vae.build_vae(cells.shape[1:], config, mean_picture=cells.mean(0) / 255)
seen = vae.train(grey, cells, config=config)
bits = -grey.elbo(unseen)["elbo"].mean() / np.log(2) / cells[0].size
print(f"at most {bits:.2f} of 8 bits per pixel, on cells of other blocks")
print(f"from top to bottom: {(time.perf_counter() - began) / 60:.1f} minutes")
assert 0 < bits < 8
plots.plot_reconstructions(unseen[:10], grey.reconstruct(unseen[:10]))

# %% [markdown]
# ## 11 Exercises
#
# Put your values in place of `None` and run the cell; it says whether you are right. Solutions are
# folded below.
#
# 1. An encoder says $\mu = 1, \sigma = 0.5$ for one latent unit. How many nats does that cost?
# 2. Somebody averages over the pixels of $32 \times 32$ colour pictures and sums over the latent
#    units. Which `beta` is that?
# 3. A model reaches 86.3 nats per digit of $28 \times 28$ pixels. How many bits per pixel is that?
# 4. How many nats of ELBO per test digit are lost with section 3's two latent units and twelve
#    epochs instead of section 7's twenty and forty?

# %%
nats, beta, bits_per_pixel, lost = None, None, None, None


def check(question, yours, expected, tolerance):
    right = yours is not None and abs(yours - expected) <= tolerance
    verdict = f"expected {expected:,} ± {tolerance}: right" if right else "not yet"
    print(f"{question}: your value {yours}, {verdict}")


check("1 nats for one unit", nats, 0.818, 0.001)
check("2 beta", beta, 3072, 0)
check("3 bits per pixel", bits_per_pixel, 0.1588, 0.0002)
check("4 nats lost with two units", lost, 49.0, 1.5)

# %% [markdown]
# <details>
# <summary>Solutions</summary>
#
# ```python
# # 1. The closed form of section 2.
# nats = 0.5 * (1**2 + 0.5**2 - 1 - np.log(0.5**2))
#
# # 2. Every value of the picture, channels included, counts a 3072nd; times 3072 it is a sum, and
# # the KL term 3072 times itself.
# beta = 32 * 32 * 3
#
# # 3. A bit is log 2 nats.
# bits_per_pixel = 86.3 / np.log(2) / 28**2
#
# # 4. Both models draw the pixels of the test digits with one seed.
# lost = (larger.model.elbo(test, seed=0)["elbo"] - model.elbo(test, seed=0)["elbo"]).mean()
# ```
#
# </details>
#
# ## Sources
#
# * D. P. Kingma, M. Welling, *Auto-encoding variational Bayes*, ICLR 2014, arXiv 1312.6114
# * D. J. Rezende, S. Mohamed, D. Wierstra, *Stochastic backpropagation*, ICML 2014, arXiv 1401.4082
# * Y. Burda, R. Grosse, R. Salakhutdinov, *Importance weighted autoencoders*, ICLR 2016, arXiv
#   1509.00519
# * I. Higgins et al., *beta-VAE*, ICLR 2017
# * D. P. Kingma et al., *Improved variational inference with inverse autoregressive flow*, NeurIPS
#   2016, arXiv 1606.04934 (free bits)
# * J. Tomczak, M. Welling, *VAE with a VampPrior*, AISTATS 2018, arXiv 1705.07120
# * T. Salimans et al., *PixelCNN++*, ICLR 2017, arXiv 1701.05517 (the discretised logistic)
# * T. White, *Sampling generative networks*, 2016, arXiv 1609.04468 (arcs)
