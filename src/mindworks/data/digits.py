"""Handwritten digits of 8 x 8 pixels that come with scikit-learn: 1,797 images, no file to fetch."""

from __future__ import annotations

import numpy as np

from mindworks.data.images import Images

TRAIN = 1297  # leaves 500 images for the test, 50 per class or about that
_SHUFFLE = 0  # the file lists images writer by writer; one fixed shuffle gives both parts the same writers


def digits() -> Images:
    """The digits of the UCI set "Optical Recognition of Handwritten Digits" (test part), shuffled: 1,297 and 500.

    The split is the same in every call. Images `[B, 1, 8, 8]`, pixels k / 16 for k = 0 ... 16.
    """
    from sklearn.datasets import load_digits  # half a second

    source = load_digits()
    order = np.random.default_rng(_SHUFFLE).permutation(len(source.target))
    images = (source.images / 16).astype(np.float32)[order, None]
    labels = source.target.astype(np.int64)[order]
    return Images(images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])
