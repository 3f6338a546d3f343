"""Several processes that train together, started by ``torchrun``; one process is the same with nobody to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.distributed.group import Group, join
    from pyro_vae.distributed.launch import is_one_of_several, may_speak, note_run, run_before
    from pyro_vae.distributed.noise import RowNoise
    from pyro_vae.distributed.world import ALONE, ElsewhereError, LostError, Noise, Part, World

__all__ = [
    "ALONE",
    "ElsewhereError",
    "Group",
    "LostError",
    "Noise",
    "Part",
    "RowNoise",
    "World",
    "is_one_of_several",
    "join",
    "may_speak",
    "note_run",
    "run_before",
]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        **dict.fromkeys(("Group", "join"), "group"),
        **dict.fromkeys(("is_one_of_several", "may_speak", "note_run", "run_before"), "launch"),
        "RowNoise": "noise",
        **dict.fromkeys(("ALONE", "ElsewhereError", "LostError", "Noise", "Part", "World"), "world"),
    },
)
