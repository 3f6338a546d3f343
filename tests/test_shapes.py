"""The shapes that signatures state are checked wherever tests call them."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from pyro_vae.models import SSVAE
from tests.conftest import make_pair


def test_a_shape_that_is_not_the_stated_one_is_found():
    with pytest.raises(TypeCheckError, match="'y'"):
        make_pair("ss_vae").model(y=torch.zeros(1, 3))


def test_what_states_no_shape_is_left_alone():
    assert hasattr(SSVAE.forward, "__wrapped__")
    assert not hasattr(SSVAE.__init__, "__wrapped__")
