"""What is the same for all: the sizes, and images to learn from that need no download.

An image is one bright ellipse of random place, axes, angle and brightness on black, so there is something to learn (six
numbers explain it), and as in MNIST most pixels are almost surely 0.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 28
NUM_PIXELS = SIDE * SIDE
NUM_IMAGES = 60_000
HIDDEN = 400
LATENT_DIM = 50
BATCH_SIZE = 128
LEARNING_RATE = 1e-3

M2_HIDDEN = (256, 256)
M2_BATCH_SIZE = 200
NUM_CLASSES = 10

CVAE_LATENT_DIM = 2
CVAE_BATCH_SIZE = 32
CVAE_LEARNING_RATE = 1e-4


@cache
def images(seed: int = 0) -> NDArray[np.uint8]:
    """Sixty thousand ellipses, uint8 of shape (NUM_IMAGES, NUM_PIXELS)."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    chunks = []
    for _ in range(0, NUM_IMAGES, 1000):
        x, y, long, short, angle, bright = (
            random.uniform(low, high, (1000, 1, 1)).astype(np.float32)
            for low, high in ((7, 20), (7, 20), (5, 10), (2, 4), (0, np.pi), (200, 255))
        )
        along = ((across - x) * np.cos(angle) + (down - y) * np.sin(angle)) / long
        beside = ((down - y) * np.cos(angle) - (across - x) * np.sin(angle)) / short
        chunks.append(bright * np.exp(-((along**2 + beside**2) ** 2)))
    return np.concatenate(chunks).astype(np.uint8).reshape(NUM_IMAGES, NUM_PIXELS)


def order(batch_size: int, seed: int = 1) -> NDArray[np.int64]:
    """The row numbers of one shuffled pass, int64 of shape (number of full batches, batch_size)."""
    steps = NUM_IMAGES // batch_size
    return np.random.default_rng(seed).permutation(NUM_IMAGES)[: steps * batch_size].reshape(steps, batch_size)
