"""Shapes as types: ``Float[Tensor, "S N"]`` is a tensor of floats, of S draws for each of N data.

The names are jaxtyping's, and the tests check every call against them.  Elsewhere they are never evaluated, so nobody
pays for them, and jaxtyping need not be installed.  S counts draws, N data, E joint values of the enumerated sites, D
unconstrained numbers per datum, C chains, T steps of time, K classes, components or parameters.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Int, Shaped
else:

    class Shaped:
        """A tensor of a shape, for whoever evaluates the annotation all the same."""

        def __class_getitem__(cls, tensor_and_shape: tuple[Any, str]) -> Any:
            return tensor_and_shape[0]

    Bool = Float = Int = Shaped

__all__ = ["Bool", "Float", "Int", "Shaped"]
