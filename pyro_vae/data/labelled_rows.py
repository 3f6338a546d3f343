"""Which rows keep their label: a balanced subset drawn by seed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pyro_vae.data.images import Images
from pyro_vae.errors import InputError

Labels = int | Literal["all", "none"]


def labelled_rows(images: Images, labels: Labels, num_classes: int | None, seed: int) -> Tensor:
    """The rows whose label the training may see.

    A number is spread over the classes as evenly as it goes; which rows, and which classes get one more where it does
    not divide, is drawn by ``seed``.

    Args:
        images: the training rows.
        labels: how many, or ``all`` or ``none``.
        num_classes: the number of classes, None where the data have no labels.
        seed: draws the rows.

    Returns:
        Row indices of shape (number of labels,), int64, sorted.

    Raises:
        InputError: if there are fewer rows than that, less than one per class, or no labels at all.

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
    if labels == "all":
        return torch.arange(len(images))
    if not num_classes <= labels <= len(images):
        raise InputError(
            f"--labels from {num_classes} (one per class) to {len(images)} (the training rows), or all or none",
            str(labels),
            f"use --labels {min(max(labels, num_classes), len(images))}",
        )
    generator = torch.Generator().manual_seed(seed)
    truth = images.labels.cpu()
    shuffled = torch.randperm(len(images), generator=generator)
    rank = torch.empty(len(images), dtype=torch.int64)  # the place of each row among those of its class
    for label in range(num_classes):
        mine = shuffled[truth[shuffled] == label]
        rank[mine] = torch.arange(len(mine))
    tie_break = torch.randperm(num_classes, generator=generator)[truth]
    chosen = (rank * num_classes + tie_break).argsort()[:labels]  # first of every class, second of every class, …
    return chosen.sort().values
