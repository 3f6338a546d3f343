"""Who knows what: answers, right or wrong, of many people to twenty questions.

    python -m examples.item_response                # the fit beside NUTS
    python -m examples.item_response --reference    # NUTS anew; some minutes

    x_nj ~ Bernoulli(logit = able_n - hard_j),  able_n ~ Normal(0, 1),  hard_j ~ Normal(0, 1.5)

(Rasch 1960).  How able a person is, is encoded from the answers and from how hard the questions are; these all people
share.  NUTS needs a model without the people: each of them is integrated out by Gauss-Hermite quadrature, so that
twenty numbers are left.  Its means and standard deviations are in ``item_response.json`` beside this file, from 2,000
draws of which 1,500 to 3,200 are worth independent ones: the standard error of a mean is a fortieth of its standard
deviation, that of a standard deviation two per cent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

import pyro_vae
from examples.compare import Moments, against, draws_of

REFERENCE = Path(__file__).with_suffix(".json")


def model(x: Tensor) -> None:
    """Answers of shape (N, 20)."""
    hard = pyro.sample("hard", dist.Normal(0.0, 1.5).expand([x.shape[1]]).to_event(1))
    with pyro.plate("people", len(x)):
        able = pyro.sample("able", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Bernoulli(logits=able.unsqueeze(-1) - hard).to_event(1), obs=x)


def make(num_people: int = 1000, num_questions: int = 20, seed: int = 0) -> np.ndarray:
    """Answers to questions from easy to hard."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_people, 1)) - np.linspace(-2, 2, num_questions)
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def by_people(hard: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes of a quadrature over abilities, and the log-weight of each in the posterior of each person, (N, 40)."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(40))
    logits = nodes[:, None] - hard
    likelihood = x.double() @ logits.T - torch.nn.functional.softplus(logits).sum(1)
    return nodes, likelihood + (weights / weights.sum()).log()


def reference(x: Tensor, num_draws: int = 2000) -> dict[str, Moments]:
    """NUTS for the questions, and of each draw the posterior of the people; prints the errors of its means."""

    def integrated(x: Tensor) -> None:
        hard = pyro.sample("hard", dist.Normal(0.0, 1.5).expand([x.shape[1]]).to_event(1))
        pyro.factor("people", by_people(hard.double(), x)[1].logsumexp(1).sum())

    pyro.set_rng_seed(0)
    chain = MCMC(NUTS(integrated), num_draws, warmup_steps=300, disable_progbar=True)
    chain.run(x)
    chain.summary()
    draws, firsts, seconds = chain.get_samples()["hard"].double(), [], []
    for hard in draws[::10]:
        nodes, weights = by_people(hard, x)
        firsts.append(weights.softmax(1) @ nodes)
        seconds.append(weights.softmax(1) @ nodes.square())
    able = torch.stack(firsts).mean(0)
    return {
        "hard": (draws.mean(0), draws.std(0)),
        "able": (able, (torch.stack(seconds).mean(0) - able.square()).sqrt()),
    }


def main(batch_size: int = 100) -> dict[str, tuple[float, float]]:
    """Fit, and print how far the guide is from NUTS."""
    run = pyro_vae.fit(
        model,
        "mean_field",
        data=make(),
        objective="stl",
        hidden=(64,),
        lr=0.01,
        lr_schedule="cosine",
        batch_size=batch_size,
        epochs=2500 * batch_size // 800,
        display=False,
    )
    x = run.data.train.values()
    if "--reference" in sys.argv:
        moments = {name: [part.tolist() for part in both] for name, both in reference(x).items()}
        REFERENCE.write_text(json.dumps(moments) + "\n")
    kept = json.loads(REFERENCE.read_text())
    known = {name: (torch.tensor(kept[name][0]), torch.tensor(kept[name][1])) for name in ("hard", "able")}
    return against(draws_of(run, x), known)


if __name__ == "__main__":
    main()
