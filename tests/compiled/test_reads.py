"""Names are told apart by the instructions that load and store them."""

from __future__ import annotations

from pyro_vae.compiled.reads import Reads, reads

SCALE = 1.0


def of(function) -> Reads:
    return reads(function.__code__)


def test_words_and_attributes_are_no_globals():
    def program(batch):
        return batch.loc * SCALE, {"word": 1}["word"]

    found = of(program)
    assert found.globals == {"SCALE"}
    assert found.attributes == {"loc"}


def test_what_is_stored_is_not_read():
    def outer():
        kept = read = counted = 0

        def program(x, owner):
            nonlocal kept, counted
            global RESULT
            kept = x
            counted += 1
            owner.last, RESULT = x, x
            owner.steps += read
            return x

        return program

    found = of(outer())
    assert (found.cells, found.stored_cells) == ({"read", "counted"}, {"kept", "counted"})
    assert (found.attributes, found.stored_attributes) == ({"steps"}, {"last", "steps"})
    assert (found.globals, found.stored_globals) == (set(), {"RESULT"})


def test_functions_inside_count_and_their_variables_are_those_around():
    def outer():
        a = b = 1

        def program():
            local = 2

            def inner():
                return [a * SCALE + local for _ in range(3)], lambda: b

            return inner

        return program

    found = of(outer())
    assert found.cells == {"a", "b"}
    assert found.globals == {"SCALE", "range"}


def test_a_word_may_be_an_attribute_where_one_is_looked_up_by_name():
    assert of(lambda thing: getattr(thing, "flag", None)).attributes == {"flag"}
    assert of(lambda thing, name: getattr(thing, name)).by_word
    assert not of(lambda thing, name: getattr(thing, name)).any_name
    assert of(lambda thing, i: getattr(thing, f"layer_{i}")).any_name
    assert of(lambda thing: vars(thing)["flag"]).any_name
    assert not of(lambda thing: thing["flag"]).by_word
