import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

rows, losses = torch.randn(30) + 1.0, []


class Regression:
    def __init__(self):
        self.data, self.last, self.history = rows[:6], None, []

    def set_data(self, data):
        self.data = data

    def model(self):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(self.data)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=self.data)

    def guide(self):
        self.last = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))


fit = Regression()
svi = SVI(fit.model, fit.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
for epoch in range(3):
    for data in rows.split(6):
        fit.set_data(data)
        losses.append(svi.step())
        losses.append(fit.last.item())
        fit.history.append(losses[-1])
