r"""Log-probabilities of a model whose discrete sites e' are summed out in the model itself.

That is

    log p(x, z) = log sum_e' p(x, z, e').

The model runs with a dimension for each such site; sites are then summed out by message passing in the tree of plates,
as Pyro's ``TraceEnum_ELBO`` does (Obermeyer et al., *Tensor Variable Elimination for Plated Factor Graphs*, 2019), so
that a chain of them, or one for each of many parts of a datum, costs no more than its parts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
from opt_einsum import get_symbol  # type: ignore[import-untyped]
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.layout import Layout
from pyro_vae.pairs.traces import unscaled_at

Scale = float | Tensor


def marginal_total(p: Trace, layout: Layout, weights: Mapping[str, Scale]) -> Tensor:
    """The logarithm of the sum over e' of a product of sites, summed over plates as ``Layout.total`` does.

    Args:
        p: the model's trace, run by ``run_model``, log-probabilities computed.
        layout: where its batch dimensions lie.
        weights: the sites by name, each with the power that it is taken to; 1 unless annealed.
    """
    symbols = _Symbols(layout)
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    for name, weight in weights.items():
        plates, term = symbols.packed(p, name, weight)
        tree.setdefault(plates, []).append(term)
    summed = {symbol for terms in tree.values() for term in terms for symbol in symbols.summed(term)}
    contracted = contract_tensor_tree(tree, summed)
    return layout.total(symbols.unpacked(term) for terms in contracted.values() for term in terms)


def common_scale(p: Trace, sites: Iterable[str]) -> Scale:
    """The one factor that the log-probabilities of some sites are scaled by.

    Raises:
        InputError: if they are scaled by several; a sum over values of a product has no such scale.
    """
    scales = [p.nodes[name]["scale"] for name in sites]
    if any(scale is not scales[0] and not bool(torch.as_tensor(scale == scales[0])) for scale in scales):
        raise InputError(
            "one scale for all sites that depend on what is summed out",
            "several",
            "scale the whole model, or sample the site in the guide",
        )
    return scales[0] if scales else 1.0


class _Symbols:
    """A letter for each dimension of a run: plates by name, summed-out values by the site that they are of."""

    def __init__(self, layout: Layout) -> None:
        self._first = -layout.num_dims - 1  # to the left of it lie the values that are summed out
        self._dims: dict[str, int] = {}
        self._known: dict[object, str] = {}

    def packed(self, p: Trace, name: str, weight: Scale) -> tuple[frozenset[str], Tensor]:
        """The plates of a site, and its log-probability with letters for dimensions."""
        site = p.nodes[name]
        value = unscaled_at(p, name)
        value = value[...] if isinstance(weight, float) and weight == 1.0 else value * weight
        plates = {f.dim: self._symbol(("plate", f.name), f.dim) for f in site["cond_indep_stack"] if f.vectorized}
        letters = {dim: self._symbol(("dim", dim), dim) for dim in range(self._first + 1, 0)} | plates
        for dim, number in (site["infer"] or {}).get("_dim_to_id", {}).items():
            if dim <= self._first:
                letters[dim] = self._symbol(("sum", number), dim)
        return frozenset(plates.values()), packed.pack(value, letters)

    def summed(self, term: Tensor) -> list[str]:
        dims: str = term._pyro_dims  # type: ignore[attr-defined]
        return [symbol for symbol in dims if self._dims[symbol] <= self._first]

    def unpacked(self, term: Tensor) -> Tensor:
        return packed.unpack(term, self._dims)

    def _symbol(self, key: object, dim: int | None) -> str:
        assert dim is not None
        symbol: str = self._known.setdefault(key, get_symbol(len(self._known)))
        self._dims[symbol] = dim
        return symbol
