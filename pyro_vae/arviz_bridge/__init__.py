"""Posteriors as ArviZ has them: trees, PSIS, leave-one-out and netCDF, on ArviZ 0.23 and on 1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.arviz_bridge.loo import LeaveOneOut, leave_one_out, pointwise_log_likelihood
    from pyro_vae.arviz_bridge.netcdf import open_posterior, save_posterior
    from pyro_vae.arviz_bridge.pareto import psis
    from pyro_vae.arviz_bridge.restarts import to_datatree, training_trace
    from pyro_vae.arviz_bridge.tree import from_chains, from_guide

__all__ = [
    "LeaveOneOut",
    "from_chains",
    "from_guide",
    "leave_one_out",
    "open_posterior",
    "pointwise_log_likelihood",
    "psis",
    "save_posterior",
    "to_datatree",
    "training_trace",
]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "LeaveOneOut": "loo",
        "leave_one_out": "loo",
        "pointwise_log_likelihood": "loo",
        "open_posterior": "netcdf",
        "save_posterior": "netcdf",
        "psis": "pareto",
        "to_datatree": "restarts",
        "training_trace": "restarts",
        "from_chains": "tree",
        "from_guide": "tree",
    },
)
