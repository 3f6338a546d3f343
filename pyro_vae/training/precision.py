"""Networks in bfloat16, distributions in float32.

Under ``precision("bf16")`` the products inside linear and convolutional layers take bfloat16 inputs, forward and
backward; everything else, the log-probabilities above all, stays in float32, and so do the parameters.  (torch's own
autocast would hand bfloat16 outputs on to the distributions.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Precision = Literal["32", "bf16"]
LAYERS = (
    F.linear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)


def precision(name: Precision) -> AbstractContextManager[Any]:
    """A context in which networks compute in that precision."""
    return _BFloat16Layers() if name == "bf16" else nullcontext()


def note_on_precision(name: Precision, device: torch.device) -> str:
    """What a user should know of that precision on a device before training; empty where it is what they expect."""
    if name == "32" or device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ""
    return "this processor has no bfloat16 arithmetic: a step takes longer, up to ten times, than with --precision 32"


class _BFloat16Layers(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in LAYERS or not all(_is_single(value) for value in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        return func(*map(_lower, args), **{name: _lower(value) for name, value in kwargs.items()}).float()


def _is_single(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.dtype == torch.float32


def _lower(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) else value
