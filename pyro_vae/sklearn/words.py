"""What the engine says, in the words of an estimator: its parameters in the place of the command line's flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyro_vae.errors import InputError, TrainingError

PARAMETERS = {
    "latent-dim": "n_components",
    "hidden": "hidden_layer_sizes",
    "epochs": "max_iter",
    "seed": "random_state",
    "labels": "y",
    "channels": "image_shape",
}
_WORD = "none|mask|dynamic|threshold|gaussian|cosine|vae"
_FLAG = re.compile(rf"--([a-z][a-z-]*)(?: ([\w.:=,]*[\d:=][\w.:=,]*\w|\d|{_WORD})\b)?")


def as_parameters(text: str) -> str:
    """A sentence that names parameters of an estimator where it named flags.

    Example:
        >>> from pyro_vae.sklearn.words import as_parameters
        >>> as_parameters("give it more labels (--labels) or train longer: --epochs 40")
        'give it more labels (y) or train longer: max_iter=40'
        >>> as_parameters("try --beta cyclical:0:1:40:4, or a smaller --lr")
        "try settings={'beta': 'cyclical:0:1:40:4'}, or a smaller settings['lr']"
    """
    return _FLAG.sub(_parameter, text)


def _parameter(found: re.Match[str]) -> str:
    flag, value = found[1], found[2]
    if flag in PARAMETERS:
        name = PARAMETERS[flag]
        return name if value is None or name == "y" else f"{name}={value}"
    name = flag.replace("-", "_")
    if value is None:
        return f"settings[{name!r}]"
    return f"settings={{{name!r}: {value if re.fullmatch(r'[0-9.]+', value) else repr(value)}}}"


@contextmanager
def in_parameters() -> Iterator[None]:
    """Errors of the engine that name parameters where they named flags."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(as_parameters(error.found), as_parameters(error.mend)) from error
    except InputError as error:
        said = as_parameters(str(error))
        if said == str(error):
            raise
        raise InputError(said) from error
