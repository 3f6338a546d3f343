r"""Leave-one-out cross-validation of posteriors whose latents are shared by all data.

The log predictive density of a datum left out is estimated from draws of the whole posterior by Pareto-smoothed
importance sampling (Vehtari, Gelman and Gabry, *Practical Bayesian Model Evaluation Using Leave-One-Out
Cross-Validation and WAIC*, 2017).  Draws of a guide are not draws of the posterior: with log_weight = log p(x, z) -
log q(z | x),

    elpd_i = log sum_s w_si p(x_i | z_s),   log w_si = psis(log_weight_s - log p(x_i | z_s)),

where the weights of a datum sum to one (Magnusson, Andersen, Jonasson and Vehtari, *Bayesian Leave-One-Out
Cross-Validation for Large Data*, 2019).  Without log_weight it is the error of the guide that is cross-validated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.arviz_bridge.pareto import USABLE_K_HAT, psis
from pyro_vae.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class LeaveOneOut:
    """The expected log pointwise predictive density.

    Args:
        pointwise: the expected log predictive density of each datum, nats, shape (N,).
        k_hat: how far each can be relied on, shape (N,).
        log_weights: the log importance weights of the posteriors without each datum, normalized, shape (S, N).

    Example:
        >>> import xarray as xr
        >>> from pyro_vae.arviz_bridge import leave_one_out
        >>> log_likelihood = xr.Dataset({"x": (("chain", "draw", "datum"), torch.full((2, 50, 3), -1.5).numpy())})
        >>> loo = leave_one_out(xr.DataTree.from_dict({"log_likelihood": log_likelihood}))
        >>> loo.elpd, loo.as_dict()["unreliable"]  # three data of -1.5 nats each, whatever the draw
        (-4.5, 0)
    """

    pointwise: Tensor
    k_hat: Tensor
    log_weights: Tensor

    @property
    def elpd(self) -> float:
        """The sum over data, nats; higher is better."""
        return self.pointwise.sum().item()

    @property
    def standard_error(self) -> float:
        """The standard error of the sum, over data."""
        return (len(self.pointwise) * self.pointwise.var(correction=0)).sqrt().item()

    def as_dict(self) -> dict[str, float]:
        """The metrics by name."""
        unreliable = int((self.k_hat > USABLE_K_HAT).sum())
        return {"elpd": self.elpd, "standard_error": self.standard_error, "unreliable": unreliable}


def leave_one_out(tree: xr.DataTree, site: str | None = None) -> LeaveOneOut:
    """Leave-one-out cross-validation of a tree of ``arviz_bridge.tree``; draws of a guide are reweighted.

    Args:
        tree: with a group ``log_likelihood``.
        site: the observed site; default: the only one.

    Raises:
        InputError: if every latent belongs to one datum, so that there is no such group, or it is not said which of
            several sites is meant.

    Example:
        >>> import xarray as xr
        >>> from torch.distributions import Normal
        >>> from pyro_vae.arviz_bridge import leave_one_out
        >>> x = torch.randn(20)
        >>> mu = Normal(x.mean(), 20**-0.5).sample((4, 500, 1))  # draws of its posterior under a flat prior
        >>> log_likelihood = xr.Dataset({"x": (("chain", "draw", "datum"), Normal(mu, 1.0).log_prob(x).numpy())})
        >>> loo = leave_one_out(xr.DataTree.from_dict({"log_likelihood": log_likelihood}))
        >>> abs(loo.elpd - Normal((x.sum() - x) / 19, (20 / 19) ** 0.5).log_prob(x).sum()) < 0.2  # here it is known
        tensor(True)
    """
    log_likelihood = pointwise_log_likelihood(tree, site)
    log_ratios = -log_likelihood
    if tree.attrs.get("inference") == "variational":
        log_weight = tree["sample_stats"]["log_weight"].transpose("chain", "draw").to_numpy()
        log_ratios = log_ratios + torch.as_tensor(log_weight).double().flatten().unsqueeze(-1)
    log_weights, k_hat = psis(log_ratios)
    return LeaveOneOut((log_weights + log_likelihood).logsumexp(0), k_hat, log_weights)


def pointwise_log_likelihood(tree: xr.DataTree, site: str | None = None) -> Tensor:
    """Log p(x_i | z), nats, shape (chains * draws, N); arguments and errors as ``leave_one_out``.

    Example:
        >>> import xarray as xr
        >>> from pyro_vae.arviz_bridge import pointwise_log_likelihood
        >>> log_likelihood = xr.Dataset({"x": (("chain", "draw", "datum"), torch.randn(2, 50, 3).numpy())})
        >>> pointwise_log_likelihood(xr.DataTree.from_dict({"log_likelihood": log_likelihood})).shape
        torch.Size([100, 3])
    """
    site = observed_site(tree, site)
    if "log_likelihood" not in tree.children or site not in tree["log_likelihood"]:
        raise InputError(
            f"latents shared by all data and the likelihood of {site!r} given them",
            "a posterior without, whose leave-one-out estimate is a harmonic mean of infinite variance",
            "compare such models by the importance-weighted likelihood of held-out data",
        )
    values = tree["log_likelihood"][site].transpose("chain", "draw", ...).to_numpy()
    return torch.as_tensor(np.ascontiguousarray(values)).double().flatten(2).flatten(0, 1)


def observed_site(tree: xr.DataTree, site: str | None) -> str:
    """The name of an observed site: the one that is asked for, or the only one there is.

    Args:
        tree: the posterior, perhaps with the data.
        site: the name; None: that of the only site.

    Raises:
        InputError: if there are several and none is named.

    Example:
        >>> import xarray as xr
        >>> from pyro_vae.arviz_bridge.loo import observed_site
        >>> observed_site(xr.DataTree.from_dict({"observed_data": xr.Dataset({"purchases": 3.0})}), None)
        'purchases'
    """
    if site is not None:
        return site
    groups = [name for name in ("observed_data", "log_likelihood") if name in tree.children]
    names = [str(name) for name in tree[groups[0]].data_vars] if groups else ["x"]
    if len(names) != 1:
        raise InputError("which observed site", f"none of {', '.join(names)}", f"use site={names[0]!r}, for example")
    return names[0]
