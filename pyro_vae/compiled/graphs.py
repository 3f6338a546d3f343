"""The graphs of one pair of programs, under one estimator.

A call runs in one of several ways.  The first of its kind runs as it is, eagerly; the second is recorded as it runs;
the third runs once more as it is, with the graph beside it, and the two must agree; from the fourth on the graph runs.
Each way is one evaluation of the estimator that draws the same noise, so that a sequence of calls gives what stock Pyro
gives.  A graph is replayed as it was recorded until its runs have lost what compiling it costs (see ``payoff``).

The *kind* of a call is what its graph depends on: the form of the arguments (see ``arguments``), torch's own switches,
and the form of the programs (see ``program_state``); and the numbers among both, as long as they stay.  A number that
is another one at a later call is handed over as a tensor from then on, if the programs can take it.

Where validation is on, a graph says whether all values were valid (see ``validation``), and where a choice in Python or
a shape depends on whole numbers or truths of tensors, whether these are what they were (see ``tape``); if not, the call
is made again as it is, from the same noise.  Whatever goes wrong while a graph is made or first run leaves everything
as it was, and the call is run as it is.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from pyro_vae.compiled import payoff
from pyro_vae.compiled.acquaintances import ACQUAINTANCES
from pyro_vae.compiled.contents import Unwatchable
from pyro_vae.compiled.outcomes import Outcome
from pyro_vae.compiled.payoff import CompileEstimate, Credit, reason
from pyro_vae.compiled.readings import TELLS, Call, Reader, Reading, Run
from pyro_vae.compiled.refusals import MAX_NODES, Failed, Missed, TooLarge, Unsettled
from pyro_vae.compiled.snapshot import torch_noise

if TYPE_CHECKING:
    from pyro_vae.compiled.recorded_graph import RecordedGraph

logger = logging.getLogger(__name__)

MAX_GRAPHS = 16  # of one pair; then the one that was used least recently gives way
_PATIENCE = 3  # calls in a row that change their own programs, until these run eagerly for good
_MAX_KINDS = 256  # of calls that are remembered
_STRANGERS = 8  # calls in a row, each of a kind of its own, until only some of them are looked at
_LONGEST_PAUSE = 100  # calls that are not looked at
_CHANGES_SHOWN = 3
_MARGIN = 1.1  # of the operations that are allowed before a run is recorded over those that it was counted to take
_SLOW = 10.0  # seconds of a compilation that is announced


class NotCompiled(UserWarning):
    """A program runs eagerly; the text says why.

    Example:
        >>> import warnings
        >>> import pyro
        >>> from pyro_vae.compiled import CompiledTrace_ELBO
        >>> def program():
        ...     pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        >>> with warnings.catch_warnings(record=True, action="always") as said, pyro.poutine.scale(scale=0.1):
        ...     loss = CompiledTrace_ELBO().loss(program, program)
        >>> print(said[0].category.__name__, said[0].message)
        NotCompiled Trace_ELBO runs eagerly: an effect handler stands around the call (ScaleMessenger)
    """


class Recompiled(UserWarning):
    """A program has changed, and a graph was recorded anew; the text says what has changed.

    Example:
        >>> import warnings
        >>> from pyro_vae.compiled import CompiledTrace_ELBO, Recompiled
        >>> from pyro_vae.guides import MeanField
        >>> from pyro_vae.models import VAE
        >>> model, x, elbo = VAE((1, 8, 8), latent_dim=2), torch.rand(3, 1, 8, 8).round(), CompiledTrace_ELBO()
        >>> with warnings.catch_warnings(action="error", category=Recompiled):  # a switch that flips is a fault here
        ...     loss = elbo.loss(model, MeanField(model), x)
        >>> loss > 0
        True
    """


@dataclass
class _Kind:
    """Calls that share their graphs: several only where programs bind one tensor, or several, in some places."""

    size: int = 0  # operations that its run is known to take, at least
    needs: int = 0  # operations that must be allowed until it is recorded
    calls: int = 0  # that ran eagerly since a graph did: parameters may have been cleared, and are made by the next
    graphs: list[RecordedGraph] = field(default_factory=list)


class CompiledPair:
    """One pair of programs under one estimator.

    Args:
        name: of the estimator, for a person.
        run_stock: makes a call as Pyro's own estimator does.

    Attributes:
        num_graphs: how many graphs were recorded so far.
    """

    def __init__(self, name: str, run_stock: Run) -> None:
        self._name, self._run_stock = name, run_stock
        self.num_graphs = 0
        self._reader = Reader()
        self._kinds: dict[Hashable, _Kind] = {}
        self._forms: dict[Hashable, int] = {}  # of the programs, at the last graph for arguments of a form
        self._graphs: dict[RecordedGraph, _Kind] = {}  # the least recently used first
        self._credit = Credit()
        self._started = False
        self._evicted = 0
        self._unsettled = 0
        self._strangers = self._pause = 0
        self._because = ""
        self._met: dict[str, Hashable] = {}  # the forms of the arguments of the last call of a new kind
        self._reason = ""
        self._said: set[str] = set()

    def evaluate(self, call: Call) -> Outcome | Any:
        """An outcome, or what the stock estimator returned where it ran."""
        if self._reason or self._pause > 0:
            self._pause -= 1
            return self._run_stock(call)
        reading = self._read(call) if self._started else None
        if reading is None:
            return self._start(call)
        ACQUAINTANCES.forget(self._name, call)
        if reading.kind not in self._kinds:
            return self._meet(reading)
        kind = self._kinds[reading.kind]
        self._strangers = 0
        bound = reading.bound
        for graph in kind.graphs:
            held = graph.find(bound)
            if held is not None:
                return self._replay(graph, kind, reading, held)
        if kind.calls >= payoff.EAGER_CALLS and self._credit.allows(kind.needs) and self._has_room():
            return self._record(kind, reading)
        return self._run_stock(call) if kind.needs == sys.maxsize else self._run(kind, reading)

    def _start(self, call: Call) -> Any:
        """A call that is not looked at, and the first one, at which programs make what they hold later.

        Whoever makes programs or an estimator anew for every step makes none but first calls: once that is known,
        nothing is looked at.
        """
        result = self._run_stock(call)
        if not self._started:
            self._started = True
            like_it = ACQUAINTANCES.meet(self._name, call)
            if like_it == _STRANGERS:
                self._say("a model, guide or estimator is made anew for every call; make it once, before the loop")
            elif like_it < _STRANGERS and (reading := self._read(call)) is not None:
                self._kinds.setdefault(reading.kind, _Kind()).calls += 1
        return result

    def _run(self, kind: _Kind, reading: Reading) -> Any:
        result = self._run_stock(reading.call)
        kind.calls += 1
        self._credit.earn(kind.size)
        self._has_settled(reading)
        return result

    def _meet(self, reading: Reading) -> Any:
        """A call of a new kind; where one follows another it is not worth while to look at all of them."""
        self._kinds[reading.kind] = kind = _Kind()
        if len(self._kinds) > _MAX_KINDS:
            for old in [key for key, other in self._kinds.items() if not other.graphs][: _MAX_KINDS // 2]:
                del self._kinds[old]
        self._strangers += 1
        before, self._met = self._met, reading.arguments.forms
        result = self._run(kind, reading)
        if self._strangers >= _STRANGERS and not self._reason:
            self._pause = min(2**self._strangers // _STRANGERS, _LONGEST_PAUSE)
            others = [path for path, form in self._met.items() if before.get(path) != form]
            why = self._because or (f" ({_listed(others)} differs)" if others else TELLS * reading.tells_numbers)
            self._say(f"each of {_STRANGERS} calls in a row was of a kind of its own{why}")
        return result

    def _record(self, kind: _Kind, reading: Reading) -> Outcome | Any:
        from pyro_vae.compiled import making  # late: a second call alone needs it

        try:
            graph, answer, error = making.make_graph(self._run_stock, reading, self._credit.operations)
        except Failed as failed:
            answer = making.answer_instead(self._run_stock, reading.call, failed.__cause__)
            self._fail(kind, reading, failed.__cause__, alone=True)
            return answer
        self._credit.spend(graph.nodes)
        kind.size, kind.needs, kind.calls = graph.nodes, graph.nodes, 0
        if error is not None:
            self._fail(kind, reading, error)
        elif self._has_settled(reading):
            self._say_changes(reading)
            kind.graphs.append(graph)
            self._graphs[graph] = kind
            self.num_graphs += 1
            self._make_room()
        return answer

    def _replay(self, graph: RecordedGraph, kind: _Kind, reading: Reading, held: list[Tensor]) -> Outcome | Any:
        self._graphs[graph] = self._graphs.pop(graph)
        kind.calls = 0
        if not graph.is_tried:
            from pyro_vae.compiled import making  # there since the recording

            result, error = making.try_graph(graph, self._run_stock, reading, held)
            if isinstance(error, Missed):
                return self._miss(graph, kind, result)
            graph.is_tried = True
            if error is not None:
                self._drop(graph)
                self._fail(kind, reading, error)
            return result
        inputs = reading.inputs
        estimate = graph.counted()
        if estimate is not None:
            self._compile(graph, estimate, inputs, held)
        self._credit.earn(graph.nodes)
        restore = torch_noise()
        try:
            outputs = graph.run(inputs, held)
        except Exception as error:
            restore()
            answer = self._run_stock(reading.call)  # which raises what is wrong with the data
            if graph.guarded:  # with values that it was not recorded for, it may fail
                return self._miss(graph, kind, answer)
            self._drop(graph)
            self._fail(kind, reading, error)
            return answer
        if graph.checks and not outputs[-1]:
            restore()
            return self._miss(graph, kind, self._run_stock(reading.call))  # which raises the error that Pyro has for it
        return graph.outcome(outputs, reading.differentiable, held)

    def _miss(self, graph: RecordedGraph, kind: _Kind, answer: Any) -> Any:
        """A call that the programs answered, for what a choice or a shape depends on is not what it was."""
        if graph.guarded and graph.misses():
            self._drop(graph)
            self._give_up(kind, graph.guarded)
        return answer

    def _give_up(self, kind: _Kind, why: str) -> None:
        """Run the calls of a kind eagerly from now on; all calls where there are no graphs of others."""
        if self._graphs:
            kind.needs = sys.maxsize
            self._say(f"{why} (in calls of one kind; those of others are graphs)")
        else:
            self.refuse(why)

    def _compile(
        self, graph: RecordedGraph, estimate: CompileEstimate, inputs: list[Tensor], held: list[Tensor]
    ) -> None:
        logger.log(logging.WARNING if estimate.cost > _SLOW else logging.INFO, f"{self._name} is compiled: {estimate}")
        try:
            graph.compile(inputs, held)
        except Exception as error:
            logger.info(f"{self._name} is replayed as recorded: {reason(error)}")

    def _fail(self, kind: _Kind, reading: Reading, error: BaseException | None, alone: bool = False) -> None:
        """Draw the consequence of what went wrong with a graph: again later, with numbers as they are, or never.

        That a run cannot be recorded says nothing of the graphs of other kinds (``alone``); a graph that is wrong does.
        """
        assert isinstance(error, Exception)
        if isinstance(error, Unsettled):
            kind.calls = 0
        elif isinstance(error, TooLarge) and max(error.operations, self._credit.operations) < MAX_NODES:
            kind.size = error.operations
            kind.needs = int(_MARGIN * max(error.operations, self._credit.operations))
            self._credit.spend(error.recorded)
        elif reading.lifted:
            whole = [path for path, number in reading.lifted.items() if isinstance(number, int)]
            chosen = whole or list(reading.lifted)
            self._reader.never_lift(chosen)
            self._because = f" ({', '.join(chosen)}: {reason(error)})"
        elif alone:
            self._give_up(kind, reason(error))
        else:
            self.refuse(reason(error))

    def _has_room(self) -> bool:
        return self._evicted < MAX_GRAPHS

    def _make_room(self) -> None:
        if len(self._graphs) > MAX_GRAPHS:
            self._evicted += 1
            self._say(
                f"calls of more than {MAX_GRAPHS} kinds; the graph that was used least recently gives way. "
                "Hand over as tensors what changes from call to call"
            )
            self._drop(next(iter(self._graphs)))

    def _drop(self, graph: RecordedGraph) -> None:
        self._graphs.pop(graph).graphs.remove(graph)

    def _has_settled(self, before: Reading) -> bool:
        """Whether a run has left the programs as they were; gives up if one after another does not."""
        after = self._read(before.call)
        if after is None:
            return False
        changes = self._reader.changes(before, after)
        self._unsettled = self._unsettled + 1 if changes else 0
        if self._unsettled >= _PATIENCE:
            self.refuse(f"the program changes itself at each call ({_listed(changes)})")
        return not changes

    def _say_changes(self, reading: Reading) -> None:
        """Say what is another now than at the last graph, but for what tells training from evaluation."""
        form = reading.state.form
        before = self._forms.get(reading.around, form)
        self._forms[reading.around] = form
        changes = [text for text in self._reader.difference(before, form) if ".training: " not in text]
        if changes:
            text = f"recorded anew, because the program has changed: {_listed(changes)}"
            warnings.warn(text, Recompiled, stacklevel=_depth())

    def _read(self, call: Call) -> Reading | None:
        """What a call depends on; None where there is to be no graph."""
        if self._reason:
            return None
        around = _around_calls()
        if around:
            self._say(around)
            return None
        try:
            return self._reader.read(call)
        except Exception as error:  # of any kind: what cannot be looked at still runs
            self.refuse(str(error) if isinstance(error, Unwatchable) else reason(error))
            return None

    def refuse(self, why: str) -> None:
        """Run eagerly from now on, and say why."""
        self._reason = why
        self._kinds.clear()
        self._graphs.clear()
        self._reader = Reader()
        self._say(why)

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            warnings.warn(f"{self._name} runs eagerly: {reason}", NotCompiled, stacklevel=_depth())


def _listed(changes: list[str]) -> str:
    """The first of some changes, in one line."""
    more = len(changes) - _CHANGES_SHOWN
    return ", ".join([*changes[:_CHANGES_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _depth() -> int:
    """How many frames lie between the function that calls this and the code that uses the estimator, for a warning."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith((__package__, "pyro.", "torch.")):
        frame, depth = frame.f_back, depth + 1
    return depth


def _around_calls() -> str:
    """What sees, or changes, every operation that is made now, and would see none of a graph's; empty for nothing."""
    handlers = [handler for handler in _PYRO_STACK if not _only_looks(handler)]
    if handlers:
        return f"an effect handler stands around the call ({type(handlers[-1]).__name__})"
    if torch.is_anomaly_enabled():
        return "torch looks for anomalies, operation by operation"
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    names = [type(mode).__name__ for mode in modes if not isinstance(mode, DeviceContext)]
    return f"a mode of torch stands around the call ({names[-1]})" if names else ""


def _only_looks(handler: Any) -> bool:
    """Whether a handler changes nothing of a run: one that notes parameters, or keeps sites from those around it."""
    return type(handler) is BlockMessenger or (isinstance(handler, TraceMessenger) and bool(handler.param_only))
