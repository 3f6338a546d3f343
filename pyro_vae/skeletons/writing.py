"""A new part and its test, written from a template.

A template is the source of a part that works, in which ``skeleton_name`` stands for its name and ``SkeletonName`` for
that of its class.  The part lies where its kind does, so that its registry finds it; the tests of the kind's laws find
it there.
"""

from __future__ import annotations

import importlib
import keyword
import re
from functools import partial
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError, nearest
from pyro_vae.files.whole import write_picture
from pyro_vae.registry import Registry

KINDS = {  # the folder, and the registry there
    "model": ("models", "MODELS"),
    "guide": ("guides", "GUIDES"),
    "prior": ("priors", "PRIORS"),
    "likelihood": ("likelihoods", "LIKELIHOODS"),
    "objective": ("objectives", "OBJECTIVES"),
}
RESERVED = ("auto", "none")  # which mean something wherever a part is chosen
LONGEST = 40  # characters of a name
CHECKOUT = Path(__file__).parents[2]


def write_skeleton(kind: str, name: str, root: Path = CHECKOUT) -> tuple[Path, Path]:
    """Write a new part and its test; returns the two files.

    Args:
        kind: model, guide, prior, likelihood or objective.
        name: by which it will be chosen, and that of its file: small letters, digits and underscores.
        root: the checkout to write into.

    Raises:
        InputError: if there is no such kind, the name cannot be one or is taken, a file is there already, or the place
            is not a checkout or cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from pyro_vae.skeletons import write_skeleton
        >>> for folder in ("pyro_vae/priors", "tests"):
        ...     Path("checkout", folder).mkdir(parents=True)
        >>> Path("checkout/pyproject.toml").touch()
        >>> part, test = write_skeleton("prior", "shifted", Path("checkout"))
        >>> part.as_posix(), test.as_posix()
        ('checkout/pyro_vae/priors/shifted.py', 'checkout/tests/priors/test_shifted.py')
        >>> "class ShiftedPrior(nn.Module):" in part.read_text()
        True
    """
    if kind not in KINDS:
        raise InputError("a kind of part", repr(kind), nearest(kind, KINDS))
    folder, registry_name = KINDS[kind]
    _check_name(name)
    _check_checkout(root)
    registry: Registry[Any] = getattr(importlib.import_module(f"pyro_vae.{folder}"), registry_name)
    part, test = root / "pyro_vae" / folder / f"{name}.py", root / "tests" / folder / f"test_{name}.py"
    taken = next((path for path in (part, test) if path.exists()), None)
    if name in registry or taken is not None:
        got = f"{name!r}, which is taken" if taken is None else f"{name!r}, and there is {taken}"
        raise InputError(f"a name for a new {kind}", got, "choose another")
    written = []
    try:
        for path, template in ((part, kind), (test, f"test_{kind}")):
            source = (Path(__file__).parent / "templates" / f"{template}.txt").read_text(encoding="utf-8")
            text = source.replace("SkeletonName", _class_name(name, kind)).replace("skeleton_name", name)
            write_picture(path, partial(_write, text), "a new part")
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return part, test


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _check_checkout(root: Path) -> None:
    """Refuse a place that has no sources to add to."""
    if not ((root / "pyproject.toml").is_file() and (root / "tests").is_dir()):
        raise InputError(
            "a checkout of pyro_vae, to which the part is added",
            f"the package alone, in {root}",
            'clone the repository and run pip install -e . there, or see "From another package" in docs/extending.md',
        )


def _check_name(name: str) -> None:
    """Refuse what cannot be the name of a module that is chosen by it."""
    if re.fullmatch(rf"[a-z][a-z0-9_]{{0,{LONGEST - 1}}}", name, re.ASCII) and name not in RESERVED:
        if not (keyword.iskeyword(name) or keyword.issoftkeyword(name)):
            return
        got = f"{name!r}, a word of Python's"
    else:
        got = f"{name!r}, which means something else" if name in RESERVED else repr(name)
    raise InputError(
        f"a name of at most {LONGEST} small letters, digits and underscores that begins with a letter",
        got,
        "use one such as my_part",
    )


def _class_name(name: str, kind: str) -> str:
    """The name of the class, which is none of those that a template imports: these have no part's ending."""
    words = [word for word in name.split("_") if word]
    camel = "".join(word[0].upper() + word[1:] for word in words)
    return camel if camel.lower().endswith(kind) and len(words) > 1 else f"{camel}{kind.capitalize()}"
