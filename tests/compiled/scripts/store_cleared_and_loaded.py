import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

x, losses = torch.randn(8), []


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample(
            "x", dist.Normal(z, pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)), obs=x
        )


def guide(x):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))


svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
losses += [svi.step(x) for _ in range(7)]
state = pyro.get_param_store().get_state()
state = {
    "params": {k: v.detach().clone().requires_grad_() for k, v in state["params"].items()},
    "constraints": state["constraints"],
}
losses += [svi.step(x) for _ in range(4)]
pyro.clear_param_store()
losses += [svi.step(x) for _ in range(7)]
pyro.get_param_store().set_state(state)
losses += [svi.step(x) for _ in range(7)]
pyro.param("loc").unconstrained().data.fill_(1.0)
losses += [svi.step(x) for _ in range(3)]
pyro.get_param_store()["loc"] = torch.tensor(-1.0)
losses += [svi.step(x) for _ in range(7)]
