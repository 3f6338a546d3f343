"""A guide by one word for the models of Pyro's own examples, which are run as they are and not changed."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.optim import PyroOptim
from pyro.poutine.util import site_is_subsample
from rich.table import Column, Table

from pyro_vae.guides import amortize

STEPS, AVERAGED, RATE = 60, 5, 0.005
OWN_START = {
    "sparse_gamma_def": ("mean_field:init_scale=0.02", 0.001)
}  # gammas of gammas, far from which all is infinite
MadeUp = tuple[Callable[..., Any], tuple[Any, ...]]  # a model, and what it is called with
Module = ModuleType
UNUSED = {"visdom": "Visdom", "seaborn": "set", "wget": "download"}  # what they draw and fetch with, and a name in it


def _hits(name: str) -> Callable[[Module], MadeUp]:
    return lambda m: (getattr(m, name), (torch.full((18,), 45.0), torch.randint(5, 20, (18,)).float()))


def _seen_again(name: str) -> Callable[[Module], MadeUp]:
    return lambda m: (getattr(m, name), (torch.randint(0, 2, (15, 6)).float(), torch.randint(0, 2, (15,)).float()))


def _topics(m: Module) -> MadeUp:
    sizes = {"num_words": 30, "num_topics": 4, "num_docs": 20, "num_words_per_doc": 8}
    options = argparse.Namespace(**sizes, batch_size=None, layer_sizes="16", jit=False)
    return m.model, (torch.randint(0, 30, (8, 20)), options)


def _gamma(m: Module) -> MadeUp:
    family = m.SparseGammaDEF()
    return family.model, (torch.poisson(3 * torch.ones(20, family.image_size)),)


def _cells(m: Module) -> MadeUp:
    cells = m.SCANVI(num_genes=12, num_labels=3, l_loc=1.0, l_scale=1.0)
    return cells.model, (torch.poisson(3 * torch.ones(10, 12)), None)


def _chorales(m: Module) -> MadeUp:
    x = torch.rand(6, 5, 8).round()
    model = m.DMM(input_dim=8, z_dim=4, emission_dim=5, transition_dim=6, rnn_dim=5).model
    return model, (x, x.flip(1), torch.ones(6, 5), torch.tensor([5] * 6))


def _chain(m: Module) -> MadeUp:
    options = argparse.Namespace(hidden_dim=3, raftery_parameterization=False, jit=False)
    return m.model_1, (torch.randint(0, 2, (4, 6, 8)).float(), torch.tensor([6] * 4), options)


def _weather(m: Module) -> tuple[Any, ...]:
    prior, _, seen = m.generate_data(30)
    return prior, seen, 30


EXAMPLES: dict[str, tuple[str, Callable[[Module], MadeUp]]] = {
    "baseball, fully pooled": ("baseball.py", _hits("fully_pooled")),
    "baseball, not pooled": ("baseball.py", _hits("not_pooled")),
    "baseball, partially pooled": ("baseball.py", _hits("partially_pooled")),
    "baseball, with logits": ("baseball.py", _hits("partially_pooled_with_logit")),
    "lda": ("lda.py", _topics),
    "sparse_gamma_def": ("sparse_gamma_def.py", _gamma),
    "vae": ("vae/vae.py", lambda m: (m.VAE().model, (torch.rand(10, 1, 28, 28).round(),))),
    "ss_vae_M2": ("vae/ss_vae_M2.py", lambda m: (m.SSVAE(hidden_layers=[50]).model, (torch.rand(10, 784).round(),))),
    "scanvi": ("scanvi/scanvi.py", _cells),
    "cjs, model 1": ("capture_recapture/cjs.py", _seen_again("model_1")),
    "cjs, model 4": ("capture_recapture/cjs.py", _seen_again("model_4")),
    "eight_schools": ("eight_schools/svi.py", lambda m: (m.model, (m.data,))),
    "toy_mixture": ("toy_mixture_model_discrete_enumeration.py", lambda m: (m.model, _weather(m))),
    "dmm": ("dmm.py", _chorales),
    "autoname, mixture": ("contrib/autoname/mixture.py", lambda m: (m.model, (torch.randn(20), 3))),
    "hmm, model 1": ("hmm.py", _chain),
    "inclined_plane": ("inclined_plane.py", lambda m: (m.model, (1 + torch.rand(10),))),
}


def tried(checkout: Path, family: str = "mean_field") -> Table:
    """A table of the examples: their latent sites, and the loss before and after some steps, or why there is no guide.

    Args:
        checkout: of Pyro.
        family: the guide by name.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    for name, inside in UNUSED.items():
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = ModuleType(name)
            setattr(sys.modules[name], inside, None)
    columns = (Column("example", no_wrap=True), "family", "sites", "loss before", "after, or why not")
    table = Table(*columns, title=f"models alone, {STEPS} steps of SVI")
    for name, (file, made_up) in EXAMPLES.items():
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        try:
            model, args = made_up(_load(checkout / "examples" / file))
            chosen, rate = OWN_START.get(name, (family, RATE))
            table.add_row(name, chosen, *_trained(model, args, chosen, rate))
        except Exception as error:  # of whatever kind: it is a row of the table
            first = str(error).strip().split("\n")[0]
            table.add_row(name, family, "", "", f"{type(error).__name__}: {first}")
    logging.disable(logging.NOTSET)
    return table


def _load(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _trained(model: Callable[..., Any], args: tuple[Any, ...], family: str, rate: float) -> tuple[str, str, str]:
    guide = amortize(model, family, args)
    pyro.clear_param_store()
    elbo = TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False)
    svi = SVI(model, guide, PyroOptim(torch.optim.Adam, {"lr": rate}), elbo)
    losses = [svi.step(*args) for _ in range(STEPS)]
    trace = pyro.poutine.trace(guide).get_trace(*args)
    sites = [name for name in trace.stochastic_nodes if not site_is_subsample(trace.nodes[name])]
    shown = ", ".join(sites[:4]) + (f" and {len(sites) - 4} more" if len(sites) > 4 else "")
    return shown, f"{sum(losses[:AVERAGED]) / AVERAGED:.1f}", f"{sum(losses[-AVERAGED:]) / AVERAGED:.1f}"
