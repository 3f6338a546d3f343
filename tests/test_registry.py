from __future__ import annotations

import pytest

from pyro_vae.errors import InputError
from pyro_vae.registry import Registry


class Needs:
    """Needs a size. And more."""

    def __init__(self, size: int, color: str = "blue") -> None:
        self.size, self.color = size, color


@pytest.fixture
def things() -> Registry[Needs]:
    registry: Registry[Needs] = Registry("thing")
    registry.register("needs")(Needs)
    return registry


def test_build_takes_only_the_ingredients_that_are_named(things):
    thing = things.build("needs", size=3, unheard_of=1, color=None)
    assert (thing.size, thing.color) == (3, "blue")


def test_build_says_which_ingredient_is_missing(things):
    with pytest.raises(InputError, match="expected size for the thing 'needs'; got none"):
        things.build("needs", size=None)


def test_unknown_name_suggests_the_near_miss(things):
    with pytest.raises(InputError, match=r"expected a known thing; got 'neds'; did you mean 'needs'\?"):
        things["neds"]
    with pytest.raises(InputError, match="choose one of: needs"):
        things["zzz"]


def test_a_name_is_given_once(things):
    with pytest.raises(ValueError, match="registered already"):
        things.register("needs")(Needs)


def test_mapping(things):
    assert list(things) == ["needs"]
    assert len(things) == 1
    assert "needs" in things
    assert "other" not in things
    assert things.describe("needs") == "Needs a size. And more"


def test_other_packages_register_by_entry_point(monkeypatch):
    class Point:
        name = "foreign"

        @staticmethod
        def load():
            return Needs

    asked = []
    monkeypatch.setattr("pyro_vae.registry.entry_points", lambda group: asked.append(group) or [Point])
    registry: Registry[Needs] = Registry("model")
    assert registry.build("foreign", size=1).size == 1
    assert asked == ["pyro_vae.models"]
