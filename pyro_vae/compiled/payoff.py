"""Which way something runs that is computed again and again: eagerly, replayed as recorded, or compiled.

A recorded graph is replayed operation by operation, without the programs' Python, Pyro's handlers and autograd, which
saves a fifth of a step or more; making one takes a quarter of a millisecond for each operation, as long as some 40
steps.  Compiling a graph of n operations takes about 3 s + n 25 ms.  Each run of it saves what it takes to hand an
operation over, about 1.5 us on the CPU, where TorchScript's interpreter does it, and 6 us where Python does, and most
of the memory traffic of intermediate results, which single operations write and read again at about 8 GB/s (measured
on two cores, for graphs of 130 to 2,500 operations).  These numbers are rough, but they are the same on every run, so
that the same command chooses alike each time: a choice by the clock would make the last digits of a run depend on what
else the computer did.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeVar

from pyro_vae.compiled.forms import Form
from pyro_vae.compiled.inlining import is_view
from pyro_vae.compiled.refusals import Untraceable

if TYPE_CHECKING:
    from pyro_vae.compiled.lowering import CompilableRecording
    from pyro_vae.compiled.tracing import Recording

logger = logging.getLogger(__name__)

SECONDS_ONCE = 3.0
SECONDS_AN_OPERATION = 0.025
SAVED_AN_OPERATION, SAVED_ELSEWHERE = 1.5e-6, 6e-6  # on the CPU, and on other devices
SAVED_A_BYTE = 1 / 8e9
FEWEST_RUNS = 200  # for which anything is recorded at all
MAX_COMPILED = 5_000  # operations of a graph that is compiled at all: the time grows faster than their number
FEWEST_OF_LOOPS = 500  # operations of a graph that is looked through for loops
EAGER_CALLS = 1  # of a kind, before it is recorded
RECORDED_AT_ONCE = 4_000  # operations that may be recorded on credit, in some 0.8 seconds
RECORDED_BY_ALL = 10_000  # by all programs of a process: a sweep over settings makes new ones, and leaves them soon
TYPICAL = 300  # operations of a program that is not known yet
CALLS_FOR_A_RECORDING = 40  # eager calls that take as long as making a graph of one; 30 of 60 operations, 46 of 26,000
MOST_LOST = 0.3  # of the time of the eager calls, that recording may take


Way = Literal["eager", "replayed", "compiled"]
C = TypeVar("C", bound="CompilableRecording")


@dataclass(frozen=True)
class CompileEstimate:
    """What compiling a recording costs, and what it saves.

    Args:
        operations: in the graph.
        traffic: the bytes that they put out.
        runs: the runs of the graph.
        on_cpu: whether it runs there.
    """

    operations: int
    traffic: int
    runs: int
    on_cpu: bool = True

    @classmethod
    def from_recording(cls, recording: Recording, runs: int) -> Self:
        """The estimate for ``runs`` runs of a recording."""
        calls = [node for node in recording.graph.graph.nodes if node.op == "call_function" and not is_view(node)]
        forms = [form for node in calls if isinstance(form := node.meta.get("form"), Form)]
        on_cpu = all(form.device.type == "cpu" for form in forms)
        return cls(len(calls), sum(form.num_bytes for form in forms), runs, on_cpu)

    @property
    def cost(self) -> float:
        """Seconds to compile."""
        return SECONDS_ONCE + SECONDS_AN_OPERATION * self.operations

    @property
    def gain(self) -> float:
        """Seconds saved by all runs together."""
        saved = SAVED_AN_OPERATION if self.on_cpu else SAVED_ELSEWHERE
        return self.runs * (saved * self.operations + SAVED_A_BYTE * self.traffic)

    @property
    def is_due(self) -> bool:
        """Whether the runs so far have lost what compiling costs, so that more of them would lose more.

        Who does not know how many runs are to come and compiles now loses at most as much again.
        """
        return self.operations <= MAX_COMPILED and self.pays

    @property
    def pays(self) -> bool:
        """Whether compiling saves more than it costs."""
        return self.gain > self.cost

    def __str__(self) -> str:
        return f"compiling takes about {self.cost:.0f} s and would save about {self.gain:.0f} s in {self.runs:,} runs"


class Credit:
    """How many operations may be recorded, given what was run, so that recording costs little beside running.

    A script does not say how long it runs.  What records once the eager calls have taken three times as long as that
    loses at most a third of its time if it ends right then.  Operations are counted, not seconds, so that runs repeat.
    What may be recorded before that is limited for each pair of programs, and for all of a process.

    Attributes:
        shared: operations that all pairs together may record.
    """

    shared: ClassVar[float] = RECORDED_BY_ALL

    def __init__(self) -> None:
        self._operations = float(RECORDED_AT_ONCE)

    def earn(self, operations: int) -> None:
        """Note a call of so many operations; 0 where that is not known."""
        self._operations += operations * MOST_LOST / CALLS_FOR_A_RECORDING
        Credit.shared += (operations or TYPICAL) * MOST_LOST / CALLS_FOR_A_RECORDING

    def spend(self, operations: int) -> None:
        """Note a recording of so many operations."""
        self._operations -= operations
        Credit.shared -= operations

    def allows(self, operations: int) -> bool:
        """Whether more than so many operations may be recorded now."""
        return self.operations > operations and Credit.shared > max(operations, TYPICAL)

    @property
    def operations(self) -> int:
        """How many operations a recording may have now."""
        return int(self._operations)


def compile_if_it_pays(
    name: str, make: Callable[[], C], runs: int, way: Way | None = None, exact: bool = False
) -> tuple[C | None, Way]:
    """Record something and compile it where that pays; where it does not, it is replayed as recorded.

    Args:
        name: what it is, for a person.
        make: records it.
        runs: how often it will run.
        way: how it is to run whether that pays or not; None to choose.
        exact: whether a replay is to give the same to the bit as what was recorded.

    Returns:
        The recording, ready to run, and the way it runs; None for one that runs eagerly.  Whatever stands in the way of
        recording or compiling is not an error: the next best way is taken, and the log says why.
    """
    if way == "eager":
        return None, "eager"
    if way is None and runs < FEWEST_RUNS:
        logger.info(f"the {name} runs eagerly: {runs:,} runs are too few to gain from recording it")
        return None, "eager"
    try:
        made = make()
    except Exception as error:  # of any kind: what cannot be recorded still runs
        logger.info(f"the {name} runs eagerly: {reason(error)}")
        return None, "eager"
    estimate = CompileEstimate.from_recording(made.recording, runs)
    if way == "compiled" or (way is None and estimate.pays):
        logger.info(f"compiling the {name}: {estimate}")
        try:
            made.compile()
        except Exception as error:
            logger.info(f"the {name} is replayed as recorded: {reason(error)}")
        else:
            return made, "compiled"
    else:
        logger.info(f"the {name} is replayed as recorded: {estimate}")
    made.interpret(loops_at_once=estimate.operations >= FEWEST_OF_LOOPS and not exact)
    return made, "replayed"


def reason(error: Exception) -> str:
    """Why something was not compiled, in one line."""
    if "InvalidCxxCompiler" in f"{type(error).__name__}: {error}":  # itself, or inside the compiler's own error
        return "no C++ compiler was found; install g++ or clang, or set CXX"
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, Untraceable) else f"{type(error).__name__}: {lines[0]}"
