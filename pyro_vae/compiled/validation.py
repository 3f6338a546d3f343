"""What torch's validation asks of values, kept for a graph to answer.

Where validation is on, ``torch.distributions`` asks at every run whether parameters satisfy their constraints and
values lie in a support.  In a recording the answer is yes, and what was asked is computed by the graph: its last output
says whether all of it holds, and no result is NaN.  Where not, the programs are run as they are, for the error that
Pyro has.

Two kinds of questions are left out, since the loss answers them: a parameter that is not a number makes a loss that is
none, and a matrix that is not positive definite has no Cholesky factor.

Pyro itself asks two more of numbers, whether validation is on or off: is a scale positive, and do all enumerated sites
have one scale?  Where a number is handed over as a tensor, these are questions for the graph, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import torch
from pyro.infer import traceenum_elbo
from pyro.ops.provenance import detach_provenance
from pyro.poutine import scale_messenger
from torch import Tensor
from torch.distributions import Distribution, constraints, distribution

_ASKING: dict[CodeType, str] = {  # with the name that the constraint has there
    Distribution.__init__.__code__: "constraint",
    Distribution._validate_sample.__code__: "support",
}
_HELPER: Any = getattr(distribution, "_all_true_or_runtime_assert", None)  # asks for both, in some versions of torch
_HELPING: tuple[CodeType, ...] = () if _HELPER is None else (_HELPER.__code__,)
_SEEN_IN_THE_LOSS = ("Real()", "IndependentConstraint(Real(), 1)", "PositiveDefinite()")
_SCALING: CodeType = scale_messenger.ScaleMessenger.__init__.__code__
_COMMON_SCALE: CodeType = inspect.unwrap(traceenum_elbo._get_common_scale).__code__
_SYMMETRY: tuple[CodeType, ...] = (  # before the question proper: is a matrix symmetric?
    type(constraints.positive_definite).check.__code__,
    type(constraints.positive_semidefinite).check.__code__,
)
VALIDATION: tuple[CodeType, ...] = (*_ASKING, *_HELPING, *_SYMMETRY, _SCALING)


def is_on() -> bool:
    """Whether distributions validate their parameters and values."""
    return bool(Distribution._validate_args)


def is_check(asking: FrameType) -> bool:
    """Whether a question is one that the loss does not answer.

    Args:
        asking: the frame of the code that asks for the truth of a tensor.
    """
    if asking.f_code is _SCALING or asking.f_code in _SYMMETRY:
        return True
    if asking.f_code in _HELPING and asking.f_back is not None:
        asking = asking.f_back
    name = _ASKING.get(asking.f_code)
    return name == "support" or (name is not None and repr(asking.f_locals.get(name)) not in _SEEN_IN_THE_LOSS)


def equal_scales(asking: FrameType, scale: Tensor) -> list[Tensor] | None:
    """Where Pyro asks for the value of an enumerated site's scale: whether those of all sites are equal, as tensors.

    Args:
        asking: the frame of the code that asks for a number.
        scale: what it asks of; all are compared with the first tensor among them.

    Returns:
        None for another question.
    """
    if asking.f_code is not _COMMON_SCALE:
        return None
    scales = asking.f_locals["scales"]
    if scale is not next(each for each in scales if isinstance(each, Tensor)):
        return []
    others = {id(other): other for other in scales if other is not scale}
    return [detach_provenance(scale == other).detach() for other in others.values()]


@contextmanager
def scales_looked_at() -> Iterator[None]:
    """With Pyro's question of a scale that is a tensor, as it asks of one that is a number."""
    with mock.patch.object(scale_messenger, "is_validation_enabled", return_value=True):
        yield


def all_valid(checks: Sequence[Tensor], results: Sequence[Tensor]) -> Tensor:
    """Whether all checks hold, and no result is NaN, as a tensor."""
    return torch.stack([*checks, *((result == result).all() for result in results)]).all()
