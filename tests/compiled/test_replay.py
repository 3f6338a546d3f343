"""A replay where there is one for the shapes of the inputs, and else the function itself."""

import torch

from pyro_vae.compiled.replay import Replay, replayed


def test_inputs_of_another_shape_are_not_replayed():
    x, runs = torch.arange(3.0), []

    def function(values):
        runs.append(len(values))
        return {"double": 2 * values, "sum": values.sum()}

    replay = Replay(lambda: function(x), [x])
    replay.interpret()
    runs.clear()
    for values in (torch.tensor([4.0, 5.0, 6.0]), torch.arange(5.0)):
        found = replayed(replay, [values], lambda values=values: function(values))
        assert torch.equal(found["double"], 2 * values)
        assert found["sum"] == values.sum()
    assert runs == [5]
    assert replayed(None, [x], lambda: function(x))["sum"] == 3
    assert runs == [5, 3]
