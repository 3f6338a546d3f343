"""Programs that do odd things give what stock Pyro gives, step after step: compiled, or eagerly with the reason."""

import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled, Recompiled
from tests.compiled.odd_programs import (  # noqa: F401
    arguments,
    changed_between_calls,
    changing_themselves,
    choices,
    noise,
    operations,
    surroundings,
)
from tests.compiled.odd_programs.program import CASES, NUM_CALLS


def run(make, kind):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    program = make()
    optimizer = pyro.optim.SGD({"lr": 0.01}) if program.optimizer == "sgd" else pyro.optim.Adam({"lr": 0.02})
    svi = SVI(program.model, program.guide, optimizer, kind())
    found = []
    for i in range(NUM_CALLS):
        program.before(i)
        args, kwargs = program.calls(i)
        try:
            found.append(svi.step(*args, **kwargs))
        except IndexError:
            found.append(-1.0)
        if program.read is not None:
            found.append(program.read())
    parameters = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    return found, parameters, torch.rand(1).item()


@pytest.mark.parametrize(("make", "reason"), CASES)
def test_an_odd_program_gives_what_stock_pyro_gives(make, reason, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, parameters, noise = run(make, Trace_ELBO)
    printed = capsys.readouterr().out
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours, our_parameters, our_noise = run(make, CompiledTrace_ELBO)
    assert np.allclose(np.hstack(ours), np.hstack(found), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_parameters, parameters, rtol=1e-4, atol=1e-5)
    assert (our_noise, capsys.readouterr().out) == (noise, printed)
    reasons = [str(warning.message) for warning in said if warning.category is NotCompiled]
    assert len(reasons) == (reason is not None), reasons
    assert reason is None or reason in reasons[0]
    assert all(warning.category in (NotCompiled, Recompiled, UserWarning, FutureWarning) for warning in said)
