"""What is said where a run directory cannot be written: a place that is badly chosen, or a disk that takes no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.errors import PyroVAEError, TrainingError
from pyro_vae.files.whole import unwritable, why


def no_place(path: Path, error: OSError) -> PyroVAEError:
    """The refusal of a place for a new run."""
    return unwritable(path, error, f"a place that can be written for --out {path}", "choose another --out")


@contextmanager
def going_on_with(path: Path) -> Iterator[None]:
    """Make the beginning of work on a run that is there; what the system refuses is said in words.

    Raises:
        InputError: if the run cannot be written.
        StorageError: if the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        expected = f"a run directory that can be written at {path}"
        raise unwritable(path, error, expected, "make it writable, or copy the run") from None


def no_checkpoint(path: Path, epoch: int, kept: int, error: OSError) -> TrainingError:
    """What ends a run whose checkpoint could not be written.

    Args:
        path: the run directory.
        epoch: of the checkpoint.
        kept: the epoch whose checkpoint is there; 0: before training.
        error: what the system said.
    """
    return TrainingError(
        f"the checkpoint after epoch {epoch} could not be written to {path}: {why(error)}; "
        f"{f'the state after epoch {kept} is kept' if kept else 'nothing was learned before'}",
        f"mend that and go on with: python cli.py fit --resume {path}",
    )
