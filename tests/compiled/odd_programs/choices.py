"""Programs whose Python chooses by the values of tensors."""

from __future__ import annotations

import enum

import pyro
import pyro.distributions as dist
import torch

from tests.compiled.odd_programs.program import Program, X, base, call, case, guide, mapped


@case("a choice in Python")
def value_if():
    def m(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        s = 2.0 if z > 0 else 1.0
        pyro.sample("x", dist.Normal(z, s).expand([len(x)]).to_event(1), obs=x)

    return Program(m)


@case("a choice in Python")
def while_loop():
    def m(x):
        t = torch.tensor(0.0)
        while t < x.abs().sum():
            t = t + 1.0
        base(x, offset=t)

    return Program(m, calls=lambda i: call(X * (1 + i)))


@case("a choice in Python")
def geometric():
    def m(x):
        n = 0
        while pyro.sample(f"f{n}", dist.Bernoulli(0.5)):
            n += 1
        base(x)

    def g(x):
        n = 0
        while pyro.sample(f"f{n}", dist.Bernoulli(pyro.param("p", torch.tensor(0.4)))):
            n += 1
        guide(x)

    return Program(m, guide=g)


@case("a number in Python", quick=True)
def memmap_fail():
    t = mapped()

    def m(x):
        if float(x.sum()) > -100:
            x = x + t
        base(x)

    return Program(m)


@case("a number in Python")
def try_except():
    def m(x):
        try:
            y = x if float(x.sum()) > 0 else -x
        except Exception:
            y = x * 100
        base(y)

    return Program(m)


@case()
def bool_tensor_index():
    mask = torch.tensor([True, False, True, True, False, True])
    return Program(lambda x: base(x[mask]))


def labelled(offset, reason=None, quick=False):
    """A program that takes the offset of a label in Python; what it is asked of comes late, and is another then."""

    def make():
        labels = torch.tensor([7, 7, 7, 7, 7, 1, 2, 5])
        return Program(
            lambda x, label: base(x, offset=offset(label.item())),
            guide=guide,
            calls=lambda i: call(X, labels[i % 8]),
        )

    make.__name__ = offset.__name__
    return case(reason, quick)(make)


class Kinds(enum.Enum):
    FIRST, SECOND = 1, 5


def of_a_table(label):
    return {1: 0.5, 5: 2.0}.get(label, 0.0)


def of_a_set(label):
    return 0.5 if label in {1, 5} else 0.0


def of_an_enumeration(label):
    try:
        return float(Kinds(label).value)
    except ValueError:
        return 0.0


def of_a_text(label):
    return 0.5 if str(label) == "5" else 0.0


def of_a_name(label):
    return {"label 1": 0.5}.get(f"label {label}", 0.0)


def of_a_type(label):
    return 0.5 * label if isinstance(label, int) else -1.0


labelled(of_a_table, "a table in Python depends on the value of a tensor", quick=True)
labelled(of_a_set, "a table in Python depends on the value of a tensor")
labelled(of_an_enumeration, "a text in Python depends on the value of a tensor")
labelled(of_a_text, "a text in Python depends on the value of a tensor", quick=True)
labelled(of_a_name, "a text in Python depends on the value of a tensor")
labelled(of_a_type, "a number in Python depends on the value of a tensor", quick=True)


@case("a choice in Python")
def of_a_constant_written_to():
    def m(x):
        largest = torch.zeros(2)
        largest[1] = x.max()
        base(x, offset=1.0 if largest[1] > 3 else 0.0)

    return Program(m, calls=lambda i: call(X if i < 5 else X + 2))
