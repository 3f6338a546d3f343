r"""What a step makes of a gradient g: the update of a parameter theta, at its t-th step and the rate lr.

Both keep a mean of the gradients, m <- b1 m + (1 - b1) g.  Adam (Kingma and Ba, *Adam*, 2015) divides by a mean of
their squares, Adamax (the same, section 7.1) by the largest of them, which fades,

    v <- b2 v + (1 - b2) g^2,          theta <- theta - lr  m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps);
    u <- max(b2 u, |g| + eps),         theta <- theta - lr  m / (1 - b1^t) / u,

after theta <- (1 - lr w) theta where there is a ``weight_decay`` w (Loshchilov and Hutter, *Decoupled Weight Decay
Regularization*, 2019).

An optimizer says its update twice: as one of torch's, for steps that run operation by operation, and as operations on
tensors, for steps that are recorded.  These take ``kept``, 1 or 0: with 0 nothing changes, as if there was no step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.option_types import Positive, Share
from pyro_vae.pairs.handlers import Number
from pyro_vae.registry import Registry

State = dict[str, Any]
Update = Callable[[Tensor, Tensor, State], None]


def put_back(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put back the state of an optimizer, which must have all settings that it has now.

    Raises:
        ValueError: if one is missing, which torch would find out at the next step.
    """
    names = [set(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    missing = [name for known, group in zip(names, optimizer.param_groups, strict=True) for name in known - set(group)]
    if missing:
        raise ValueError(f"the optimizer's state has no {missing[0]}")


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers; a new one registers itself as a frozen dataclass, whose fields are its options.

    Args:
        beta1: b1, how much of the mean of the gradients a step keeps.
        beta2: b2, how much of their size a step keeps.
        eps: what keeps the divisor from being 0.

    Example:
        >>> from pyro_vae.training import OPTIMIZERS
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = OPTIMIZERS.build("adamax:beta1=0.8").of_torch([weight], lr=0.1, weight_decay=0.0)
        >>> (weight[0] - 5 * weight[1]).backward()
        >>> optimizer.step()
        >>> weight.detach()  # the first step is as long as the rate, whatever the gradient
        tensor([0.9000, 2.1000])
    """

    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Positive = 1e-8

    sizes = ""  # the name of what torch keeps of the gradients' sizes

    def of_torch(self, parameters: Sequence[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """An optimizer of torch, whose state is that of the recorded steps too."""
        raise NotImplementedError

    def moments(self, parameter: Tensor) -> State:
        """The state of a parameter before its first step."""
        state = {"step": torch.zeros((), device=parameter.device)}
        return state | {name: torch.zeros_like(parameter) for name in ("exp_avg", self.sizes)}

    def update(self, lr: Tensor, step: Tensor, kept: Number) -> Update:
        """The effect of a step on a parameter, called with it, its gradient and its state.

        Args:
            lr: the rate, shape ().
            step: how many steps the parameter has made with this one, shape (), at least 1.
            kept: 1, or 0 for a step that is to change nothing.
        """
        raise NotImplementedError


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")


@OPTIMIZERS.register("adam")
class Adam(Optimizer):
    """Adam: steps as long as the rate, less where gradients disagree."""

    sizes = "exp_avg_sq"

    def of_torch(self, parameters: Sequence[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(parameters, lr, betas, self.eps, weight_decay=weight_decay, fused=fused)

    def update(self, lr: Tensor, step: Tensor, kept: Number) -> Update:
        """Without the corrections of the moments, which are taken to the length of the step and what is added.

        So an entry takes one square root and one division, and parameters that have made as many steps share the rest.
        """
        root = (1 - self.beta2**step).sqrt()
        length, small = _once(kept * lr * root / (1 - self.beta1**step)), _once(self.eps * root)
        mean, size = _once(kept * (1 - self.beta1)), _once(kept * (1 - self.beta2))

        def make(parameter: Tensor, gradient: Tensor, state: State) -> None:
            m, v = state["exp_avg"], state["exp_avg_sq"]
            m.add_((gradient - m) * mean)
            v.add_((gradient * gradient - v) * size)
            parameter.sub_(length * (m / (v.sqrt() + small)))

        return make


class _TorchAdamax(torch.optim.Adamax):
    """Torch's Adamax, with the weight decay of AdamW."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if group["decoupled"] and parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["decoupled"])
        super().step(closure)


@OPTIMIZERS.register("adamax")
class Adamax(Optimizer):
    """Adamax: Adam by the largest gradients so far, which a single large one does not throw off."""

    sizes = "exp_inf"

    def of_torch(self, parameters: Sequence[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        group = {"params": list(parameters), "decoupled": weight_decay}
        return _TorchAdamax([group], lr, (self.beta1, self.beta2), self.eps)

    def update(self, lr: Tensor, step: Tensor, kept: Number) -> Update:
        length, mean = _once(kept * lr / (1 - self.beta1**step)), _once(kept * (1 - self.beta1))
        fade = _once(1 - kept * (1 - self.beta2))

        def make(parameter: Tensor, gradient: Tensor, state: State) -> None:
            m, u = state["exp_avg"], state["exp_inf"]
            m.add_((gradient - m) * mean)
            u.copy_(torch.maximum(u * fade, kept * (gradient.abs() + self.eps)))
            parameter.sub_(length * m / torch.where(u > 0, u, 1.0))

        return make


def _once(number: Number) -> Number:
    """A number that is the same for every entry, as memory: the compiler would compute it anew for each few entries."""
    return number.as_strided((), ()) if isinstance(number, Tensor) else number
