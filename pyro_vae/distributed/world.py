r"""What a training asks of the processes that it runs in, and the answers where there is one.

P processes hold the same parameters.  A batch of B rows is cut into P parts of B_p rows, without repetition, and the
gradient of its mean loss is the mean over processes of

    grad (P B_p / B) mean_{n in p} loss_n,

so that a step is the step of one process on the whole batch.  Whoever computes asks a ``World``: which part is mine,
what is the mean over all, who writes.  One process, ``ALONE``, has the whole batch, is the mean and the writer, and no
other code asks how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pyro_vae.errors import PyroVAEError

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")


class ElsewhereError(PyroVAEError):
    """A failure of another process, which says itself what it is.

    Args:
        exit_status: what that process ends with.

    Example:
        >>> from pyro_vae.distributed import ElsewhereError
        >>> ElsewhereError(2).exit_status
        2
    """

    def __init__(self, exit_status: int) -> None:
        super().__init__("another process failed, and says why")
        self.exit_status = exit_status


class LostError(PyroVAEError, RuntimeError):
    """A process that ended while the others wait for it.

    Example:
        >>> from pyro_vae.distributed import LostError
        >>> print(LostError(2, "Connection closed by peer", "runs/vae"))
        one of the 2 processes has ended or cannot be reached (Connection closed by peer);
        the last checkpoint is kept: go on with --resume runs/vae
    """

    def __init__(self, size: int, reason: str, path: str | None = None) -> None:
        kept = f"the last checkpoint is kept: go on with --resume {path}" if path else "start it again"
        super().__init__(f"one of the {size} processes has ended or cannot be reached ({reason}); {kept}")


@dataclass(frozen=True)
class Part:
    """The rows of a batch that one process has.

    Args:
        start: the first of them, counted in the batch.
        stop: one past the last.
        total: the rows of the batch, B.
        size: the processes, P.

    Example:
        >>> from pyro_vae.distributed import Part
        >>> part = Part(50, 100, 100, 2)
        >>> len(part), part.weight
        (50, 1.0)
    """

    start: int
    stop: int
    total: int
    size: int = 1

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def weight(self) -> float:
        """The weight of the mean over these rows in the mean over processes, P B_p / B."""
        return self.size * len(self) / self.total

    @property
    def rows(self) -> slice:
        """These rows of the batch."""
        return slice(self.start, self.stop)


class Noise:
    """The source of the noise of a process's rows: its own generator, as ever.

    Attributes:
        is_exact: whether what is drawn is what one process would draw for the whole batch.

    Example:
        >>> from pyro_vae.distributed import Noise, Part
        >>> with Noise().of("training", Part(0, 3, 3)):
        ...     torch.randn(3, 2).shape
        torch.Size([3, 2])
    """

    is_exact = True

    def learn(self, run: Callable[[Part], Tensor]) -> None:
        """See once how a computation draws.

        Args:
            run: makes it for a part of a batch, from the same noise each time; its mean over the parts is that of all.
        """

    def of(self, what: str, *parts: Part) -> AbstractContextManager[object]:
        """A context in which what is drawn is the noise of these rows.

        Args:
            what: which computation it is, of those that draw differently.
            parts: the rows, one part after the other.
        """
        return nullcontext()


class World:
    """One process, and the base of several.

    Attributes:
        rank: the number of this process.
        size: how many there are.

    Example:
        >>> from pyro_vae.distributed import ALONE
        >>> ALONE.part(100), ALONE.is_writer, ALONE.gather("here")
        (Part(start=0, stop=100, total=100, size=1), True, ['here'])
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run directory and the terminal."""
        return self.rank == 0

    def new_noise(self) -> Noise:
        """A source of noise, for one computation."""
        return Noise()

    def part(self, total: int) -> Part:
        """The rows of this process, of ``total``; no two processes differ by more than one."""
        return Part(self.rank * total // self.size, (self.rank + 1) * total // self.size, total, self.size)

    def mean(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], loss: Tensor
    ) -> tuple[Sequence[Tensor | None], Tensor]:
        """The means over processes of the gradients of parameters, None for one that no process has, and of a loss."""
        return gradients, loss

    def heard(self, stop: bool, report: bool) -> tuple[bool, bool]:
        """Whether any process wants to stop, and to report, as it was known with the last ``mean``.

        Args:
            stop: whether this one does.
            report: whether this one does.
        """
        return stop, report

    def gather(self, value: Result) -> list[Result]:
        """The values that the processes have, by rank, in all of them."""
        return [value]

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes what the first one has, in place."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the mean of what each has, in place."""

    def total(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums over processes, by name; one that has none of a name adds 0."""
        return sums

    def together(self, do: Callable[[], Result]) -> Result:
        """Do something in every process; where it fails in one it fails in all.

        Raises:
            ElsewhereError: if it failed in another one.
        """
        return do()

    def in_turn(self, do: Callable[[], Result]) -> Result:
        """Do something in the first process, then in the others, which find what it has left on the disk."""
        return do()

    def check_alike(self, settings: dict[str, str], mend: str) -> None:
        """Refuse processes that differ.

        Args:
            settings: what has to be the same, by name.
            mend: what to do where it is not.

        Raises:
            InputError: if another process has another value.
        """

    @contextmanager
    def watching(self, path: str | None) -> Iterator[None]:
        """Say that a process was lost in the place of what the network says.

        Args:
            path: the run directory, if there is one.

        Raises:
            LostError: if one was.
        """
        yield


ALONE = World()
