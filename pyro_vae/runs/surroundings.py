"""What the numbers of a training depend on beside its settings and data: versions, threads, the kind of device.

Two sums of the same numbers in another order differ in their last bits, and so does what a training makes of them.  The
state to resume from says under which of these it was written, so that a run that goes on under others can say so.
"""

from __future__ import annotations

import torch

from pyro_vae import __version__

SURROUNDINGS = "surroundings"  # their name in the state to resume from


def surroundings(device: torch.device) -> dict[str, str]:
    """Those of this process, by name."""
    return {
        "pyro_vae": __version__,
        "torch": str(torch.__version__),  # of a class of its own, which no state may hold
        "threads": str(torch.get_num_threads()),
        "device": device.type,
    }


def note_on(before: object, device: torch.device) -> str:
    """What to say of a run that was written under others; empty where these are the same, or not known.

    Args:
        before: what the state says, of earlier versions nothing.
        device: where the run goes on.
    """
    if not isinstance(before, dict):
        return ""
    now = surroundings(device)
    changed = [
        f"{name} {value} (before: {before[name]})" for name, value in now.items() if before.get(name, value) != value
    ]
    if not changed:
        return ""
    return (
        f"goes on with {', '.join(changed)}: its numbers may differ from those of a run in one piece in their last bits"
    )
