"""One shape for all image sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindworks.errors import require


@dataclass(frozen=True)
class Images:
    """Images with labels in two parts. B may differ between the parts; channels, height and width may not.

    Raises `InputError` for arrays of other shapes or types, or with another number of labels than images.
    """

    train_images: np.ndarray
    """float32 `[B, channels, height, width]` in [0, 1]"""
    train_labels: np.ndarray
    """int64 `[B]`, classes from 0"""
    test_images: np.ndarray
    """float32, as the training images"""
    test_labels: np.ndarray
    """int64, as the training labels"""

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            require(
                images.ndim == 4 and images.dtype == np.float32,
                f"{part}_images must be float32 [B, C, H, W], got {images.dtype} {images.shape}",
            )
            require(
                labels.ndim == 1 and labels.dtype == np.int64,
                f"{part}_labels must be int64 [B], got {labels.dtype} {labels.shape}",
            )
            require(
                len(images) == len(labels),
                f"{part}_labels must be one per image, got {len(labels)} for {len(images)} images",
            )
        require(
            self.train_images.shape[1:] == self.test_images.shape[1:],
            f"test_images must have the shape of train_images {self.train_images.shape[1:]}, "
            f"got {self.test_images.shape[1:]}",
        )
