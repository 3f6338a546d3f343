r"""The metrics of a fitted pair on a set of images.

The bound and its terms are averages over the data of ``pairs.terms``; the importance-weighted estimate is a
log-mean-exp over S samples per datum.  Log-probabilities are those of the programs, without the scales that they train
with.  A latent unit u is active where Var_x(E_q[z_u | x]) > 0.01 (Burda et al. 2016).

Where all N rows of the training set share latents w, the samples of w are draws from their posterior, so that the
estimate is of each datum's density given the training set, log E_q(w)[p(x | w)], and the bound is that of the
objective: a datum bears the N-th part of KL(q(w) || p(w)).

The estimate is a lower bound of log p(x) on average, and good where the weights are not heavy.  The shape k-hat of
their tail says so (Vehtari et al. 2024); it is fitted to those of the first data, from 100 samples per datum on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.arviz_bridge.pareto import USABLE_K_HAT, psis
from pyro_vae.compiled.payoff import FEWEST_RUNS, Way, compile_if_it_pays
from pyro_vae.compiled.replay import Replay, replayed
from pyro_vae.data.images import Images
from pyro_vae.diagnostics.classifier import accuracy, expected_calibration_error
from pyro_vae.distributed import ALONE, World
from pyro_vae.errors import InputError
from pyro_vae.pairs.draws import draw_terms_and_shared
from pyro_vae.pairs.labels import LABEL_DRAWS, label_distribution
from pyro_vae.pairs.memory import at_once
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.seeding import begin_noise, seeded
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.vectorized import check_data_plate, check_densities, draws_lie
from pyro_vae.shapes import Float

Track = Callable[[Iterable[Images], int], Iterable[Images]]  # shows how far one is, given the number of chunks

ACTIVE_VARIANCE = 0.01
FEWEST_JUDGED, MOST_JUDGED = 100, 500  # samples per datum whose tail is fitted, and data whose weights are
FEW_HEAVY, SMALL_SIZE = 0.1, 10  # share of data with heavy weights that is no cause for concern; effective samples
RUNS_PER_DATUM, MIN_SAMPLES = 500, 50  # of the decoder, where nobody says how many


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one split; log-probabilities are nats per datum.

    Args:
        num_data: the number of images N.
        elbo: the evidence lower bound, higher is better.
        log_likelihood: its reconstruction term, E_q[log p(x | z)].
        kl: KL(q(z | x) || p(z)).
        nll: minus the importance-weighted log-likelihood, lower is better.
        nll_standard_error: the standard error of that mean over the data; infinite for one datum.
        effective_samples: the effective sample size of the importance weights, the median over the data.
        num_samples: the samples per datum that all four are estimated from.
        active_units: how many latent dimensions carry information about x.
        accuracy: the share of labels that q(y | x) gets right, given the images before binarization; None without
            labels.
        error_percent: 100 (1 - accuracy).
        ece: the expected calibration error.
        heavy_weights: the share of data whose importance weights have a k-hat above 0.7, of the first 500 (of each
            process); None where there are fewer than 100 samples per datum.

    Example:
        >>> from pyro_vae.data import Images
        >>> from pyro_vae.diagnostics import evaluate
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> from pyro_vae.pairs import Pair
        >>> model, x = VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8).round()
        >>> found = evaluate(Pair(model, MeanField(model)).probe(x), Images(x), num_samples=10)
        >>> found.num_data, found.accuracy  # no labels, no accuracy
        (20, None)
    """

    num_data: int
    elbo: float
    log_likelihood: float
    kl: float
    nll: float
    nll_standard_error: float
    effective_samples: float
    num_samples: int
    active_units: int
    accuracy: float | None = None
    error_percent: float | None = None
    ece: float | None = None
    heavy_weights: float | None = None

    @property
    def note(self) -> str | None:
        """Why the NLL is not to be taken for the number that it estimates, and what to do; None where it may be."""
        heavy = self.heavy_weights or 0.0
        if self.num_samples < FEWEST_JUDGED or not (heavy > FEW_HEAVY or self.effective_samples < SMALL_SIZE):
            return None
        why = f"k-hat is above {USABLE_K_HAT} for {100 * heavy:.0f} % of the data"
        if heavy <= FEW_HEAVY:
            why = f"{self.effective_samples:.1f} of {self.num_samples} samples count, the median over the data"
        return (
            f"the importance weights are heavy ({why}): the NLL is a bound that more samples would lower; "
            "use more of them (--samples), a richer --guide, or read the ELBO"
        )

    def as_dict(self) -> dict[str, Any]:
        """The metrics by name, and the note, without those that do not apply."""
        found = asdict(self) | {"note": self.note}
        return {name: value for name, value in found.items() if value is not None}


def default_samples(structure: Structure) -> int:
    """The importance samples per datum that take 500 runs of the decoder: fewer where labels are summed over."""
    return max(MIN_SAMPLES, RUNS_PER_DATUM // structure.combinations)


def evaluate(
    probed: ProbedPair,
    images: Images,
    num_samples: int = 100,
    seed: int = 0,
    *,
    compiled: bool = True,
    track: Track = lambda chunks, total: chunks,
    world: World = ALONE,
) -> Evaluation:
    """Evaluate a pair on a set of images.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        images: the data, binarized for good where the likelihood needs it.
        num_samples: importance samples per datum.
        seed: the seed of the samples.
        compiled: whether it may be compiled, where that pays.
        track: shows how far it is: yields the chunks of images that it is given, and takes their number.
        world: the processes that share the images, each of which has a part of them and its own samples.

    Raises:
        InputError: if there are no samples to take, the programs have no likelihood per datum, or there are more
            processes than images.

    Example:
        >>> from pyro_vae.data import Images
        >>> from pyro_vae.diagnostics import evaluate
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,), scale=0.5), torch.randn(20, 3)
        >>> found = evaluate(Pair(model, MeanField(model)).probe(x), Images(x), num_samples=100)
        >>> found.elbo < -found.nll  # the bound of a guide without training lies below the log-likelihood
        True
    """
    if num_samples < 1:
        raise InputError("at least one sample per datum", str(num_samples), "use --samples 100")
    if len(images) < world.size:
        raise InputError(f"at most {len(images)} processes, one per image", str(world.size), "start fewer")
    mine = images[world.part(len(images)).rows]
    found = _per_datum(probed, mine, num_samples, seed + world.rank, compiled, track, judged=True)
    parts = world.gather({name: values.double().cpu() for name, values in found.items()})
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Evaluation(num_data=len(images), num_samples=num_samples, **_averaged(columns, images.labels))


def _averaged(columns: dict[str, Tensor], labels: Tensor | None) -> dict[str, Any]:
    """The metrics of all images from those of each."""
    means = columns.pop("means")
    metrics: dict[str, Any] = {name: columns[name].mean().item() for name in ("elbo", "log_likelihood", "kl", "nll")}
    nll = columns["nll"]
    metrics["nll_standard_error"] = (nll.std() / math.sqrt(len(nll))).item() if len(nll) > 1 else math.inf
    metrics["effective_samples"] = columns["effective_samples"].median().item()
    active = int((means.var(0) > ACTIVE_VARIANCE).sum()) if min(means.shape) > 0 and len(means) > 1 else 0
    metrics["active_units"] = active
    judged = columns["k_hat"][~columns["k_hat"].isnan()]
    metrics["heavy_weights"] = (judged > USABLE_K_HAT).double().mean().item() if len(judged) else None
    if "probabilities" in columns and labels is not None and (labels >= 0).any():
        metrics |= _of_labels(columns["probabilities"], labels.cpu())
    return metrics


def _of_labels(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """The quality of the classifier on the rows that have a label."""
    known = labels >= 0
    right = accuracy(probabilities[known], labels[known])
    error = expected_calibration_error(probabilities[known], labels[known])
    return {"accuracy": right, "error_percent": 100 * (1 - right), "ece": error}


def nll_per_datum(
    probed: ProbedPair, images: Images, num_samples: int = 100, seed: int = 0, *, by_itself: bool = False
) -> Float[Tensor, "N"]:
    """Minus the importance-weighted log-likelihood of each image, nats, shape (N,); arguments as for ``evaluate``.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        images: the data, binarized for good where the likelihood needs it.
        num_samples: importance samples per datum.
        seed: the seed of the samples.
        by_itself: whether each datum is run by itself and with the same noise as every other, so that its number does
            not depend, to the last bit, on which data come with it; takes a few times as long.

    Example:
        >>> from pyro_vae.data import Images
        >>> from pyro_vae.diagnostics import nll_per_datum
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import LinearGaussian
        >>> from pyro_vae.pairs import Pair
        >>> model, x = LinearGaussian((3,)), torch.randn(20, 3)
        >>> nll = nll_per_datum(Pair(model, MeanField(model)).probe(x), Images(x), num_samples=2000)
        >>> torch.allclose(nll.float(), -model.evidence(x), atol=0.2)  # the evidence of this model is known
        True
    """
    return _per_datum(probed, images, num_samples, seed, by_itself=by_itself)["nll"].double().cpu()


def _per_datum(
    probed: ProbedPair,
    images: Images,
    num_samples: int,
    seed: int,
    compiled: bool = True,
    track: Track = lambda chunks, total: chunks,
    by_itself: bool = False,
    judged: bool = False,
) -> dict[str, Tensor]:
    """The metrics of each datum, shapes as for ``_Sampler.metrics``."""
    probed = probed.by_row
    check_data_plate(probed)
    check_densities(probed)
    probed.pair.train(False)
    widest = probed.widest(images.pixels)
    draws = at_once(widest)
    size = 1 if by_itself else max(1, draws // num_samples)
    if not by_itself and draws_lie(probed, next(images.chunks(size)).x(), None) == "alone":
        size = draws  # of one draw each
    num_runs = math.ceil(num_samples / max(1, draws // size))
    counts = [num_samples // num_runs + (i < num_samples % num_runs) for i in range(num_runs)]
    sampler = _Sampler(probed, size, counts, MOST_JUDGED if judged and num_samples >= FEWEST_JUDGED else 0)
    with seeded(seed), torch.no_grad(), pyro.validation_enabled(False):
        if compiled:
            sampler.compile(images, only_replayed=by_itself)
        chunks = track(images.chunks(size), math.ceil(len(images) / size))

        def metrics(chunk: Images) -> dict[str, Tensor]:
            if by_itself:
                begin_noise(seed)
            return sampler.metrics(chunk)

        return _filled(map(metrics, chunks), len(images))


def _filled(parts: Iterable[dict[str, Tensor]], num_rows: int) -> dict[str, Tensor]:
    """The metrics of all chunks in tensors made beforehand.

    Kept as they are, small results would lie between the large buffers of the next runs, and the heap would grow with
    every chunk: to 24 GB for 10,000 images.
    """
    whole: dict[str, Tensor] = {}
    start = 0
    for part in parts:
        if not whole:
            whole = {name: value.new_empty((num_rows, *value.shape[1:])) for name, value in part.items()}
        stop = start + len(next(iter(part.values())))
        for name, value in part.items():
            whole[name][start:stop] = value
        start = stop
    return whole


class _Sampler:
    """The metrics of chunks of images from several runs of draws, most of them of one shape."""

    def __init__(self, probed: ProbedPair, size: int, counts: list[int], num_judged: int) -> None:
        self.probed, self.size, self.counts = probed, size, counts
        self._replay: Replay | None = None
        self._to_judge = num_judged

    def compile(self, images: Images, only_replayed: bool = False) -> None:
        """Record a run and compile it where that pays; compiled it has other noise, replayed the same."""
        chunk, count = next(images.chunks(self.size)), self.counts[0]
        draws_lie(self.probed, chunk.x(), None)  # found before the recording, not in it
        runs = len(images) // self.size * self.counts.count(count)
        with self.probed.pair.scope():
            pays = runs >= FEWEST_RUNS
            way: Way | None = ("replayed" if pays else "eager") if only_replayed else None
            self._replay, _ = compile_if_it_pays(
                "evaluation", lambda: Replay(lambda: self._run(chunk, count), chunk.tensors()), runs, way
            )

    def metrics(self, images: Images) -> dict[str, Tensor]:
        """Per datum: shape (n,), but for the latent means (n, D) and the label probabilities (n, K)."""
        runs = [self._any_run(images, count) for count in self.counts]
        num_samples = sum(self.counts)
        k_hat = self._k_hat([run.pop("log_weights") for run in runs])
        log_sum, log_sum_of_squares = (
            torch.stack([run.pop(name) for run in runs]).logsumexp(0) for name in ("log_sum", "log_sum_of_squares")
        )
        metrics = {
            name: torch.stack(
                [run[name] * (count / num_samples) for run, count in zip(runs, self.counts, strict=True)]
            ).sum(0)
            for name in runs[0]
        }
        metrics["nll"], metrics["k_hat"] = math.log(num_samples) - log_sum, k_hat.to(log_sum)
        metrics["effective_samples"] = (2 * log_sum - log_sum_of_squares).exp()
        if self.probed.has_label:
            metrics["probabilities"] = label_distribution(self.probed.pair, images.values(), LABEL_DRAWS).probs
        return metrics

    def _k_hat(self, log_weights: list[Tensor]) -> Tensor:
        """The shape of the tail of each datum's weights, shape (n,); NaN where it is not asked for."""
        k_hat = torch.full((log_weights[0].shape[1],), torch.nan)
        count = min(len(k_hat), self._to_judge)
        if count:
            self._to_judge -= count
            k_hat[:count] = psis(torch.cat([part[:, :count] for part in log_weights]))[1]
        return k_hat

    def _any_run(self, images: Images, count: int) -> dict[str, Tensor]:
        replay = self._replay if count == self.counts[0] else None
        return replayed(replay, images.tensors(), lambda: self._run(images, count))

    def _run(self, images: Images, count: int) -> dict[str, Tensor]:
        """Means over ``count`` draws, the log weights, and the logarithms of the sums of weights and squares."""
        x = images.x()
        terms, shared = draw_terms_and_shared(self.probed, x, count)
        latent = [terms.latent_mean(site) for site in terms.means]
        return {
            "log_weights": terms.log_weights,
            "log_sum": terms.log_weights.logsumexp(0),
            "log_sum_of_squares": (2 * terms.log_weights).logsumexp(0),
            "elbo": terms.elbo - shared,
            "log_likelihood": terms.log_likelihood,
            "kl": terms.kl + shared,
            "means": torch.cat(latent, -1) if latent else x.new_zeros((len(x), 0)),
        }
