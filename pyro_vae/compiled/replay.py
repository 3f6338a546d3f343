"""Named functions of tensors, without gradients, as a recorded graph: what is computed again and again on data.

A ``Repetition`` is for a function that may draw noise and is called many times in a row: it records the function once
the eager calls have taken as long as recording does, and uses the recording for as long as it gives, from the same
noise, what the function itself gives, to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor

from pyro_vae.compiled.lowering import CompilableRecording
from pyro_vae.compiled.payoff import compile_if_it_pays
from pyro_vae.compiled.tracing import record

Named = dict[str, Tensor]

FEWEST_IN_A_ROW = 10  # calls, of which the first is made twice to compare
CALLS_FOR_A_RECORDING = 20  # eager calls without gradients that take as long as recording one, at most; 5 to 17


class Replay(CompilableRecording):
    """A recorded function of inputs of one shape, compiled or as it stands.

    Args:
        function: what to record; it reads the inputs by identity.
        inputs: an example.

    Raises:
        Untraceable: if it cannot be recorded.
    """

    def __init__(self, function: Callable[[], Named], inputs: Sequence[Tensor]) -> None:
        def values() -> Sequence[Tensor]:
            named = function()
            self._names = tuple(named)
            return tuple(named.values())

        with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
            super().__init__(record(values, inputs), inputs)

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        """Whether inputs have the shapes of those that it was recorded with."""
        return [(value.shape, value.dtype) for value in inputs] == [
            (value.shape, value.dtype) for value in self._example
        ]

    def __call__(self, inputs: Sequence[Tensor]) -> Named:
        """The named values at other inputs."""
        return dict(zip(self._names, self.run(inputs), strict=True))


def replayed(replay: Replay | None, inputs: Sequence[Tensor], function: Callable[[], Named]) -> Named:
    """The named values of a function, replayed where there is a recording for inputs of these shapes.

    Args:
        replay: the recording, where there is one.
        inputs: what the function is to be replayed with.
        function: the function of just these inputs, which is run otherwise.
    """
    return function() if replay is None or not replay.fits(inputs) else replay(inputs)


class Repetition:
    """Calls of a function in a row, replayed where a recording of it gives the same.

    Args:
        name: what is repeated, for a person.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._replay: Replay | None = None
        self._eager_calls, self._recordings = 0, 0

    def calls(
        self, function: Callable[..., Named], common: Sequence[Tensor], rows: Sequence[Sequence[Tensor]]
    ) -> list[Named]:
        """What a function gives in several calls, each with noise of its own, which is that of eager calls.

        Args:
            function: the function of a row and of the common inputs, which it reads by identity.
            common: the inputs that all calls share; on other devices than the CPU nothing is recorded.
            rows: what each call is handed, all of the same shapes; one call or more.
        """
        noise = torch.get_rng_state()
        first = function(*rows[0])
        replay = self._recording(function, common, rows)
        if replay is not None and not _repeats(replay, [*common, *rows[0]], noise, first):
            self._replay = replay = None
        if replay is not None:
            return [first, *(replay([*common, *row]) for row in rows[1:])]
        self._eager_calls += len(rows)
        return [first, *(function(*row) for row in rows[1:])]

    def _recording(
        self, function: Callable[..., Named], common: Sequence[Tensor], rows: Sequence[Sequence[Tensor]]
    ) -> Replay | None:
        """The recording for inputs of these shapes, made now if that has come to pay; each one later than the last."""
        times, inputs = len(rows), [*common, *rows[0]]
        if times < FEWEST_IN_A_ROW:
            return None
        if self._replay is not None and self._replay.fits(inputs):
            return self._replay
        due = CALLS_FOR_A_RECORDING * 2**self._recordings
        if self._eager_calls + times < 2 * due or any(value.device.type != "cpu" for value in inputs):
            return None
        self._recordings += 1
        replay = functools.partial(Replay, lambda: function(*rows[0]), inputs)
        self._replay, _ = compile_if_it_pays(self._name, replay, times, "replayed", exact=True)
        return self._replay


def _repeats(replay: Replay, inputs: Sequence[Tensor], noise: Tensor, first: Named) -> bool:
    """Whether a recording gives what a call gave, and draws as much noise; the random state stays as it is."""
    after = torch.get_rng_state()
    torch.set_rng_state(noise)
    try:
        again = replay(inputs)
        return torch.equal(torch.get_rng_state(), after) and all(
            torch.equal(again[name].nan_to_num(), value.nan_to_num()) for name, value in first.items()
        )
    finally:
        torch.set_rng_state(after)
