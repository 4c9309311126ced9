"""Pictures of scenes that have nothing in common, and folders of them that a camera can show."""

from __future__ import annotations

import cv2
import numpy as np


def scene(seed, height=240, width=320):
    """Something like a picture: patches of every size, 40 to 200 bright."""
    random, made = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for cells in (3, 6, 12, 24):
        patches = random.normal(size=(cells, cells, 3)).astype(np.float32)
        made += cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    made = (made - made.min()) / (made.max() - made.min())
    return (40 + 160 * made).astype(np.uint8)


def save_scenes(folder, seeds):
    folder.mkdir()
    for place, seed in enumerate(seeds):
        cv2.imwrite(str(folder / f"{place:03}.png"), scene(seed))
    return str(folder)
