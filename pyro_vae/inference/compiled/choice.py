"""Whether compiling pays.

Compiling a graph of n operations takes about 3 s + n 25 ms.  Each of its runs saves what Python, Pyro's handlers and
torch's dispatcher take for an operation, about 6 us, and most of the memory traffic of intermediate results, which
eager operations write and read again at about 8 GB/s (measured on two cores, for graphs of 200 to 2,500 operations).
The figures are rough, but they are the same on every run, so that the same command chooses alike each time: a choice by
the clock would make the last digits of a run depend on what else the computer did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from torch import Tensor

from pyro_vae.inference.compiled.inlining import is_view
from pyro_vae.inference.compiled.lowering import Recorded
from pyro_vae.inference.compiled.tracing import Recording, Untraceable

SECONDS_ONCE = 3.0
SECONDS_AN_OPERATION = 0.025
SAVED_AN_OPERATION = 6e-6
SAVED_A_BYTE = 1 / 8e9
FEWEST_RUNS = 200


Note = Callable[[str], None]


C = TypeVar("C", bound=Recorded)


@dataclass(frozen=True)
class Outlook:
    """What compiling a recording costs, and what it saves.

    Args:
        operations: in the graph.
        traffic: the bytes that they put out.
        runs: of the graph.
    """

    operations: int
    traffic: int
    runs: int

    @classmethod
    def of(cls, recording: Recording, runs: int) -> Self:
        """Of so many runs of a recording."""
        calls = [node for node in recording.graph.graph.nodes if node.op == "call_function" and not is_view(node)]
        values = [node.meta.get("val") for node in calls]
        return cls(len(calls), sum(value.nbytes for value in values if isinstance(value, Tensor)), runs)

    @property
    def cost(self) -> float:
        """Seconds to compile."""
        return SECONDS_ONCE + SECONDS_AN_OPERATION * self.operations

    @property
    def gain(self) -> float:
        """Seconds saved by all runs together."""
        return self.runs * (SAVED_AN_OPERATION * self.operations + SAVED_A_BYTE * self.traffic)

    @property
    def pays(self) -> bool:
        """Whether compiling saves more than it costs."""
        return self.gain > self.cost

    def __str__(self) -> str:
        return f"{self.runs:,} runs would save about {self.gain:.0f} s, compiling takes about {self.cost:.0f} s"


def compile_if_it_pays(name: str, make: Callable[[], C], runs: int, wanted: bool, note: Note) -> C | None:
    """Record and compile something, or say why not.

    Args:
        name: what it is, for a person.
        make: records it.
        runs: how often it will run.
        wanted: whether it is compiled even if that does not pay.
        note: takes what a person should know.

    Returns:
        It, compiled; None where it runs eagerly.  Whatever comes in the way of compiling is no error.
    """
    try:
        if not wanted and runs < FEWEST_RUNS:
            note(f"the {name} runs eagerly: {runs:,} runs are too few to gain from compiling it")
            return None
        made = make()
        outlook = Outlook.of(made.recording, runs)
        if not (wanted or outlook.pays):
            note(f"the {name} runs eagerly: {outlook}")
            return None
        note(f"compiling the {name}: {outlook}")
        made.compile(note)
    except Exception as error:  # of any kind: what cannot be compiled still runs
        note(f"the {name} runs eagerly: {reason(error)}")
        return None
    return made


def reason(error: Exception) -> str:
    """Why something was not compiled, in one line."""
    if "InvalidCxxCompiler" in f"{type(error).__name__}: {error}":  # itself, or inside the compiler's own error
        return "no C++ compiler was found; install g++ or clang, or set CXX"
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, Untraceable) else f"{type(error).__name__}: {lines[0]}"
