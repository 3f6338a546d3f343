from __future__ import annotations

from typing import Literal

import pytest

from pyro_vae.errors import InputError
from pyro_vae.option_types import NameOrNone, SizeOrNone, Whole, WholeOrNone, Wholes
from pyro_vae.registry import Registry, parse_choice


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


class Taking:
    """Takes options."""

    def __init__(
        self, size: int, count: Whole = 2, widths: Wholes = (8, 4), gated: bool = False, kind: Literal["a", "b"] = "a"
    ) -> None:
        self.all = (size, count, widths, gated, kind)


@pytest.fixture
def taking() -> Registry[Taking]:
    registry: Registry[Taking] = Registry("thing", ("size",))
    registry.register("taking")(Taking)
    return registry


def test_a_choice_is_a_name_with_options():
    assert parse_choice("iaf") == ("iaf", {})
    assert parse_choice("mlp:hidden=400,200,gated=true") == ("mlp", {"hidden": "400,200", "gated": "true"})
    assert parse_choice("linear:0:1:10") == ("linear:0:1:10", {})


def test_options_are_read_by_their_types_and_win_over_ingredients(taking):
    assert taking.build("taking", size=1).all == (1, 2, (8, 4), False, "a")
    built = taking.build("taking:widths=3,5,count=7,gated=true,kind=b", size=1, count=4)
    assert built.all == (1, 7, (3, 5), True, "b")
    assert taking.options("taking") == {"count": 2, "widths": (8, 4), "gated": False, "kind": "a"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("taking:rank=2", "an option of the thing 'taking'; got 'rank'; it takes count=2, widths=8,4, gated=false"),
        ("taking:size=2", "an option of the thing 'taking'; got 'size'"),
        ("taking:count=many", "count of the thing 'taking' to be a whole number; got 'many'; leave it out or use"),
        ("taking:count=0", "to be at least 1; got '0'"),
        ("taking:widths=8,x", "to be a whole number; got '8,x'"),
        ("taking:gated=perhaps", "to be true or false; got 'perhaps'"),
        ("taking:kind=c", "to be 'a' or 'b'; got 'c'"),
        ("takin:count=1", r"a known thing; got 'takin'; did you mean 'taking'\?"),
    ],
)
def test_options_that_do_not_fit_are_refused(taking, choice, message):
    with pytest.raises(InputError, match=message):
        taking.check(choice)


class Sparing:
    """Takes options that may be none."""

    def __init__(self, count: WholeOrNone = None, size: SizeOrNone = None, word: NameOrNone = "a") -> None:
        self.all = (count, size, word)


def test_options_may_be_none():
    registry: Registry[Sparing] = Registry("thing")
    registry.register("sparing")(Sparing)
    assert registry.build("sparing").all == (None, None, "a")
    assert registry.build("sparing:count=none,size=none,word=none").all == (None, None, None)
    assert registry.build("sparing:count=3,size=4x5,word=b").all == (3, (4, 5), "b")
    assert registry.build("sparing:size=6").all == (None, (6, 6), "a")
    with pytest.raises(
        InputError, match=r"count of the thing 'sparing' to be a whole number; got '4x5'; .* count=none"
    ):
        registry.check("sparing:count=4x5")
    with pytest.raises(InputError, match="size of the thing 'sparing' to be one side, such as 64, or height x width"):
        registry.check("sparing:size=0x5")
    with pytest.raises(InputError, match="got 'cont'; it takes count=none, size=none, word=a"):
        registry.check("sparing:cont=1")


def test_an_entry_without_options_says_so(things):
    registry: Registry[Needs] = Registry("thing", ("size", "color"))
    registry.register("needs")(Needs)
    with pytest.raises(InputError, match="got 'rank'; it takes none"):
        registry.check("needs:rank=2")
