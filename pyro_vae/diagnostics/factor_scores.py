r"""Whether each latent comes to mean one thing: three scores of a code against the factors that made the data.

Codes z of D units and factors v of K entries, of the same data; each score is 1 where every factor is read off one unit
of its own, and near 0 where the units share them.

*Mutual information gap* (Chen et al., *Isolating Sources of Disentanglement in Variational Autoencoders*, 2018):
the mean over factors of

    (I(z_a; v_k) - I(z_b; v_k)) / H(v_k),

a and b the two units that know most about v_k.  I is that of the histogram of a unit in 20 bins of equal width, as
Locatello et al. (*Challenging Common Assumptions*, 2019) have it.

*Separated attribute predictability* (Kumar, Sattigeri and Balakrishnan, *Variational Inference of Disentangled Latent
Concepts*, 2018): the mean over factors of the difference between the two units that predict v_k best by themselves:
the squared correlation for a factor with an order, the held-out accuracy of a linear classifier for one without.

*Disentanglement, completeness, informativeness* (Eastwood and Williams, *A Framework for the Quantitative Evaluation
of Disentangled Representations*, 2018): with R_dk the importance of unit d in a random forest that predicts v_k,

    D = sum_d rho_d (1 - H_K(R_d. / sum_k R_dk)),   rho_d = sum_k R_dk / sum_dk R_dk,
    C = mean_k (1 - H_D(R_.k / sum_d R_dk)),

entropies to base K and D, and I the mean held-out accuracy (no order) or R^2 (order), at least 0, of the forests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pyro_vae.errors import InputError

BINS = 20
TREES = 40
Table = NDArray[np.float64]


@dataclass(frozen=True)
class Disentanglement:
    """Scores of a code against the factors of its data, and what they are made of.

    Args:
        names: the factors.
        mutual_information: I(z_d; v_k), nats, shape (D, K).
        entropy: H(v_k), nats, shape (K,).
        predictability: how well unit d alone predicts factor k, shape (D, K).
        importance: of unit d to the forest of factor k, shape (D, K); a column adds up to 1, or is 0.
        prediction: held-out accuracy or R^2 of each forest, shape (K,).

    Example:
        >>> import numpy as np
        >>> from pyro_vae.diagnostics import disentanglement
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, 4, (2000, 2))
        >>> turned = factors @ np.array([[1, 1], [1, -1]]) + 0.01 * rng.normal(size=(2000, 2))
        >>> for codes in (factors, turned):  # a unit for each factor; both in both
        ...     print(round(disentanglement(codes, factors).mig, 1))
        1.0
        0.0
    """

    names: tuple[str, ...]
    mutual_information: Table
    entropy: Table
    predictability: Table
    importance: Table
    prediction: Table

    @property
    def mig(self) -> float:
        """The mutual information gap."""
        return float((_gap(self.mutual_information) / self.entropy).mean())

    @property
    def sap(self) -> float:
        """The separated attribute predictability."""
        return float(_gap(self.predictability).mean())

    @property
    def dci_disentanglement(self) -> float:
        """D: how nearly each unit goes with one factor."""
        weight = self.importance.sum(1)
        return float((1 - _entropy(self.importance.T)) @ weight / weight.sum()) if weight.any() else 0.0

    @property
    def dci_completeness(self) -> float:
        """C: how nearly each factor goes with one unit."""
        return float((1 - _entropy(self.importance)).mean())

    @property
    def dci_informativeness(self) -> float:
        """I: how well the factors are predicted from the whole code."""
        return float(self.prediction.mean())

    def as_dict(self) -> dict[str, float]:
        """The five scores by name."""
        names = ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")
        return {name: getattr(self, name) for name in names}


def disentanglement(
    codes: ArrayLike, factors: ArrayLike, names: Sequence[str] = (), nominal: Sequence[str] = (), seed: int = 0
) -> Disentanglement:
    """Score a code against the factors of its data.

    Args:
        codes: a code per datum, shape (N, D), such as ``run.encode(x)``; D at least 2.
        factors: what made each datum, shape (N, K); K at least 2.  A factor with more than 20 values is cut into 20
            bins of equal width for its mutual information.
        names: the factors, K of them; default: ``factor 0`` and so on.
        nominal: the names of those whose values have no order, such as a shape.
        seed: of the forests, and of which half of the data they are judged on.

    Raises:
        InputError: if the shapes do not go together, a number is not finite, a factor never changes, or a name is
            unknown.

    Example:
        >>> from pyro_vae.data import draw_sprites
        >>> from pyro_vae.diagnostics import disentanglement
        >>> _, factors = draw_sprites()
        >>> names = ("shape", "size", "rotation", "across", "down")
        >>> found = disentanglement(factors[::7], factors[::7], names, nominal=("shape",))
        >>> {name: round(score, 1) for name, score in found.as_dict().items()}  # the best there is
        {'mig': 1.0, 'sap': 0.9, 'dci_disentanglement': 1.0, 'dci_completeness': 1.0, 'dci_informativeness': 1.0}
    """
    z, v = _table(codes, "codes"), _table(factors, "factors")
    names = tuple(names) or tuple(f"factor {k}" for k in range(v.shape[1]))
    _check(z, v, names, nominal)
    from sklearn.metrics import mutual_info_score

    ordered = [name not in nominal for name in names]
    units, values = [_binned(unit) for unit in z.T], [_binned(factor) for factor in v.T]
    held_out = np.random.default_rng(seed).permutation(len(z)) < len(z) // 2
    alone = [[_alone(unit, v[:, k], ordered[k], held_out) for k in range(len(names))] for unit in z.T]
    forests = [_forest(z, v[:, k], ordered[k], held_out, seed) for k in range(len(names))]
    return Disentanglement(
        names,
        np.array([[mutual_info_score(value, unit) for value in values] for unit in units]),
        np.array([mutual_info_score(value, value) for value in values]),
        np.array(alone),
        np.stack([importance for importance, _ in forests], axis=1),
        np.array([score for _, score in forests]),
    )


def _table(numbers: ArrayLike, what: str) -> Table:
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.detach().cpu().numpy()
    table = np.asarray(numbers, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InputError(
            f"{what} of shape (N, {'D' if what == 'codes' else 'K'}), at least two columns",
            f"{table.shape}",
            "one row per datum",
        )
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise InputError(f"{what} that are finite", f"another in row {row}", "leave such rows out")
    return table


def _check(z: Table, v: Table, names: Sequence[str], nominal: Sequence[str]) -> None:
    if len(z) != len(v) or len(z) < 4:
        raise InputError("a code and factors for each of at least 4 data", f"{len(z)} and {len(v)}", "give both")
    if len(names) != v.shape[1]:
        raise InputError(f"{v.shape[1]} names of factors", f"{len(names)}", "name each column")
    if unknown := [name for name in nominal if name not in names]:
        raise InputError(f"nominal factors among {', '.join(names)}", repr(unknown[0]), "check the name")
    if constant := [name for name, factor in zip(names, v.T, strict=True) if np.ptp(factor) == 0]:
        raise InputError("factors that change", f"one value of {constant[0]!r}", "leave it out")


def _binned(column: Table) -> NDArray[np.int64]:
    """The index of each number's bin; few values are bins of their own."""
    distinct, index = np.unique(column, return_inverse=True)
    if len(distinct) <= BINS:
        return index
    edges = np.linspace(distinct[0], distinct[-1], BINS + 1)
    return np.digitize(column, edges[1:-1])


def _alone(unit: Table, factor: Table, ordered: bool, held_out: NDArray[np.bool_]) -> float:
    """How well one unit predicts a factor."""
    if np.ptp(unit) == 0:
        return 0.0 if ordered else float(np.unique(factor, return_counts=True)[1].max() / len(factor))
    if ordered:
        return float(np.corrcoef(unit, factor)[0, 1] ** 2)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = unit[:, None], np.unique(factor, return_inverse=True)[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=100.0, max_iter=1000))
    return float(model.fit(x[~held_out], y[~held_out]).score(x[held_out], y[held_out]))


def _forest(z: Table, factor: Table, ordered: bool, held_out: NDArray[np.bool_], seed: int) -> tuple[Table, float]:
    """The importance of each unit to a forest, and its held-out score."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind: Any = RandomForestRegressor if ordered else RandomForestClassifier
    y = factor if ordered else np.unique(factor, return_inverse=True)[1]
    forest = kind(TREES, random_state=seed, min_samples_leaf=2).fit(z[~held_out], y[~held_out])
    return forest.feature_importances_, max(0.0, float(forest.score(z[held_out], y[held_out])))


def _gap(scores: Table) -> Table:
    """Of each column, the largest less the second largest."""
    second, first = np.sort(scores, axis=0)[-2:]
    return np.asarray(first - second)


def _entropy(columns: Table) -> Table:
    """The entropy of each column, scaled to add up to 1, to the base of its length; 1 for a column of zeros."""
    total = columns.sum(0)
    shares = np.divide(columns, total, out=np.full_like(columns, 1 / len(columns)), where=total > 0)
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(0) / np.log(len(columns)))
