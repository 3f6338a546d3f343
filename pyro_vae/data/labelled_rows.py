"""Which rows keep their label: a balanced subset drawn by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pyro_vae.data.images import Images
from pyro_vae.errors import InputError

NumLabels = int | Literal["all", "none"]


def labelled_rows(
    images: Images, labels: NumLabels, num_classes: int | None, seed: int, class_names: Sequence[str] = ()
) -> Tensor:
    """The rows whose label the training may see.

    Rows without a label of their own are never among them.  A number is spread over the classes as evenly as it goes;
    which rows, and which classes get one more where it does not divide, is drawn by ``seed``.

    Args:
        images: the training rows.
        labels: how many, or ``all`` or ``none``.
        num_classes: the number of classes, None where the data have no labels.
        seed: draws the rows.
        class_names: the classes, for messages; default: their numbers.

    Returns:
        Row indices of shape (number of labels,), int64, sorted.

    Raises:
        InputError: if there are fewer rows with a label than that, less than one per class, or no labels at all.

    Example:
        >>> from pyro_vae.data import labelled_rows, load_data
        >>> data = load_data("digits")
        >>> rows = labelled_rows(data.train, 20, data.num_classes, seed=0)
        >>> data.train.labels[rows].bincount()
        tensor([2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    if labels == "none":
        return torch.empty(0, dtype=torch.int64)
    if images.labels is None or num_classes is None:
        raise InputError(
            "data with class labels", "data without", "use --labels none, or an .npz file with y, or class folders"
        )
    truth = images.labels.cpu()
    known = (truth >= 0).nonzero().squeeze(1)
    _check_every_class(truth[known], class_names or [str(label) for label in range(num_classes)])
    if labels == "all":
        return known
    if not num_classes <= labels <= len(known):
        rows = "the training rows" if len(known) == len(images) else "the training rows that have one"
        raise InputError(
            f"--labels from {num_classes} (one per class) to {len(known)} ({rows}), or all or none",
            str(labels),
            "use --labels all" if labels > len(known) else f"use --labels {num_classes}",
        )
    return _spread(truth, known, num_classes, seed)[:labels].sort().values


def _spread(truth: Tensor, known: Tensor, num_classes: int, seed: int) -> Tensor:
    """The rows with a label in a drawn order: the first of every class, then the second, and so on."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(truth), generator=generator)
    rank = torch.empty(len(truth), dtype=torch.int64)  # the place of each row among those of its class
    for label in range(num_classes):
        mine = shuffled[truth[shuffled] == label]
        rank[mine] = torch.arange(len(mine))
    tie_break = torch.randperm(num_classes, generator=generator)[truth[known]]
    return known[(rank[known] * num_classes + tie_break).argsort()]


def _check_every_class(labels: Tensor, class_names: Sequence[str]) -> None:
    counts = labels.bincount(minlength=len(class_names))
    if not counts.all():
        without = [name for name, count in zip(class_names, counts.tolist(), strict=True) if not count]
        named = ", ".join(map(repr, without[:5])) + (", …" if len(without) > 5 else "")
        raise InputError(
            f"a label of each of the {len(class_names)} classes among the training rows",
            f"none of {named}",
            "label more rows of it, leave that class out, or use --labels none and a model without labels",
        )
