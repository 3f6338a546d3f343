from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoDiagonalNormal

from pyro_vae.arviz_bridge import from_guide
from pyro_vae.data import Images
from pyro_vae.diagnostics import Effort, criticise_pair, evaluate
from pyro_vae.errors import InputError
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair
from pyro_vae.posterior import Target
from tests.conftest import make_pair


def coin_model(x):
    with pyro.plate("data", len(x)):
        rate = pyro.param("rate", torch.tensor(2.0), constraint=constraints.positive)
        z = pyro.sample("z", dist.Gamma(rate, rate))
        pyro.sample("x", dist.Poisson(z), obs=x)


def coin_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Gamma(x + pyro.param("a", torch.tensor(1.0), constraint=constraints.positive), 1.0))


def test_structure_of_a_vae(x):
    probed = make_pair("vae").probe(x)
    assert probed.latent == ("z",)
    assert (probed.enumerated, probed.combinations) == ((), 1)
    assert (probed.nesting, probed.data_dim) == (1, -1)
    assert probed.support is dist.constraints.boolean
    assert not probed.has_label


def test_structure_of_a_labelled_model(x, y):
    pair = make_pair("ss_vae")
    probed = pair.probe(x)
    assert probed.latent == ("y", "z")
    assert (probed.enumerated, probed.combinations) == (("y",), 3)
    assert probed.has_label
    assert pair.probe(x, y).enumerated == ()


def test_probe_leaves_the_random_state_and_the_mode_alone(x):
    pair = make_pair("vae")
    before = torch.get_rng_state()
    pair.model.train()
    pair.guide.eval()
    pair.probe(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert (pair.model.training, pair.guide.training) == (True, False)


def test_parameters_of_plain_programs_are_found_saved_and_put_back():
    x = torch.tensor([0.0, 2.0, 3.0])
    pair = Pair(coin_model, coin_guide)
    pair.probe(x)
    assert set(pair.parameters()) == {"rate", "a"}
    state = {name: value.clone() for name, value in pair.state_dict().items()}
    assert set(state) == {"param.rate", "param.a"}
    with torch.no_grad():
        for value in pair.parameters().values():
            value.add_(1.0)
    assert not torch.equal(pair.state_dict()["param.rate"], state["param.rate"])
    pair.load_state_dict(state)
    assert torch.equal(pair.state_dict()["param.rate"], state["param.rate"])


def test_pairs_do_not_share_parameters_of_the_same_name():
    x = torch.tensor([0.0, 2.0, 3.0])
    first, second = Pair(coin_model, coin_guide), Pair(coin_model, coin_guide)
    first.probe(x)
    second.probe(x)
    assert first.parameters()["rate"] is not second.parameters()["rate"]
    assert not pyro.get_param_store().keys()


def test_an_autoguide_trains(x):
    def model(x):
        weight = pyro.sample("weight", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(weight, 1.0), obs=x.flatten(1).mean(1))

    pair = Pair(model, AutoDiagonalNormal(model, init_scale=0.1))
    pair.probe(x)
    objective = OBJECTIVES["elbo"](pair.probe(x))
    optimizer = torch.optim.Adam([p for p in pair.parameters().values() if p.requires_grad], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        objective(x).backward()
        optimizer.step()
    precision = len(x) + 1 / 100
    exact = x.flatten(1).mean(1).sum() / precision
    assert pair.guide.loc.item() == pytest.approx(exact.item(), abs=0.15)


def test_weights_of_other_programs_are_refused(x):
    vae, ss_vae = make_pair("vae"), make_pair("ss_vae")
    vae.probe(x)
    with pytest.raises(InputError, match="weights of this model and guide"):
        vae.load_state_dict(ss_vae.state_dict())


def test_labels_go_only_to_programs_that_take_them(x, y):
    assert len(make_pair("ss_vae").arguments(x, y)) == 2
    assert len(make_pair("ss_vae").arguments(x, None)) == 1
    assert len(Pair(coin_model, coin_guide).arguments(x, y)) == 1


def normal_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def normal_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x[:, 0], 1.0))


def centred_model(x):
    normal_model(x - x.mean(0))


def walking_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.cumsum(-1), 1.0), obs=x[:, 0])


def centred_guide(x):
    normal_guide(x - x.mean(0))


@pytest.mark.parametrize(
    ("model", "guide", "site"),
    [
        (centred_model, normal_guide, "'x' of the model"),
        (walking_model, normal_guide, "'x' of the model"),
        (normal_model, centred_guide, "'z' of the guide"),
    ],
)
def test_rows_that_depend_on_other_rows_are_refused(model, guide, site):
    with pytest.raises(InputError, match=f"got the site {site}, whose density depends on other rows too"):
        Pair(model, guide).probe(torch.arange(11.0)[:, None])


def test_noise_beside_the_sites_is_no_dependence_between_rows():
    def noisy_model(x):
        normal_model(x + torch.randn_like(x))

    probed = Pair(noisy_model, normal_guide).probe(torch.arange(11.0)[:, None])
    assert probed.computed == ("x",)  # and what is observed is not x itself


def test_what_is_observed_in_other_units_is_known():
    def scaled_model(x):
        normal_model(x / 255)

    x = torch.arange(11.0)[:, None]
    assert Pair(scaled_model, normal_guide).probe(x).computed == ("x",)
    assert Pair(normal_model, normal_guide).probe(x).computed == ()


def test_a_guide_of_points_has_no_density():
    def point_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(pyro.param("a", torch.tensor(0.5)) * x[:, 0]))

    def drawing_guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x[:, 0] / 2, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u))

    x = torch.arange(11.0)[:, None]
    points = Pair(normal_model, point_guide).probe(x)
    assert points.points == ("z",)
    with pytest.raises(InputError, match="a guide with a density at the site 'z'; got Delta, which is one point"):
        evaluate(points, Images(x), num_samples=5)
    with pytest.raises(InputError, match="a guide with a density at the site 'z'"):
        criticise_pair(points, x, Effort(samples=30, simulated=0))
    with pytest.raises(InputError, match="a guide with a density at the site 'z'"):
        from_guide(Target(points, x), num_draws=3)
    assert Pair(normal_model, drawing_guide).probe(x).points == ()
