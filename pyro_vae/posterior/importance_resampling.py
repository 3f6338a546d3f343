r"""Draws from a posterior by sampling importance resampling: draw from the guide, and keep one draw by its weight.

Of K draws z_1, …, z_K from q(z | x), z_k is kept with a probability proportional to w_k = p(x, z_k) / q(z_k | x).  Its
distribution is q for K = 1, and tends to p(z | x) as K grows (Rubin, *The Calculation of Posterior Distributions by
Data Augmentation: Comment*, 1987; for filling in what is missing, Mattei and Frellsen, *MIWAE*, 2019).
"""

from __future__ import annotations

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.pairs.layout import per_datum
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.traces import distribution_at, log_prob_at, rows_axis, value_at


def draw_resampled(probed: ProbedPair, x: Tensor, num_proposals: int) -> dict[str, Tensor]:
    r"""A draw of every latent site of the guide for each datum, labels drawn too, without gradients.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: data of shape (N, \*event_shape).
        num_proposals: K; where a site lies outside the plate over data, 1 whatever is asked for.

    Returns:
        The values by site, as one run of the guide on x gives them.
    """
    proposals = 1 if probed.data_dim is None else num_proposals
    tiled = x.repeat(proposals, *(1,) * (x.dim() - 1))
    arguments = probed.pair.arguments(tiled, None)
    with torch.no_grad(), poutine.block(), probed.pair.scope():
        q = prune_subsample_sites(poutine.trace(probed.pair.guide).get_trace(*arguments))
        values = {name: value_at(q, name) for name in probed.latent}
        if proposals == 1:
            return values
        p = prune_subsample_sites(poutine.trace(poutine.replay(probed.pair.model, trace=q)).get_trace(*arguments))
    q.compute_log_prob()
    p.compute_log_prob()
    scored = [*p.observation_nodes, *(name for name in probed.latent if name in p.nodes)]
    weights = _total(probed, p, scored, len(tiled)) - _total(probed, q, list(probed.latent), len(tiled))
    noise = -torch.empty_like(weights).exponential_().log()
    kept = (weights + noise).view(proposals, len(x)).argmax(0)  # a draw by weight: the largest, with Gumbel noise added
    rows = kept * len(x) + torch.arange(len(x), device=x.device)
    assert probed.data_dim is not None
    return {
        name: value.index_select(rows_axis(value, distribution_at(q, name).event_dim, probed.data_dim), rows)
        for name, value in values.items()
    }


def _total(probed: ProbedPair, trace: Trace, sites: list[str], num_rows: int) -> Tensor:
    """The log-probability of some sites per datum, shape (N,)."""
    total = torch.zeros(num_rows, device=next(iter(probed.pair.parameters().values()), torch.zeros(())).device)
    for name in sites:
        log_prob = log_prob_at(trace, name)
        padded = log_prob.reshape((1,) * (probed.nesting - log_prob.dim()) + log_prob.shape)
        total = total + per_datum(padded, probed).reshape(-1)
    return total
