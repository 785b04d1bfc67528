"""The shape of image sets, and the digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from mindworks.data import Images, digits
from mindworks.errors import InputError


def _arrays(count: int = 3, size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, 1, size, size), np.float32), np.zeros(count, np.int64)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ((_arrays()[0].astype(np.float64), _arrays()[1]), _arrays(), "train_images must be float32"),
        (_arrays(), (_arrays()[0][:, 0], _arrays()[1]), "test_images must be float32"),
        ((_arrays()[0], _arrays()[1].astype(np.uint8)), _arrays(), "train_labels must be int64"),
        (_arrays(), (_arrays(3)[0], _arrays(4)[1]), "got 4 for 3 images"),
        (_arrays(size=5), _arrays(size=6), "test_images must have the shape"),
    ],
)
def test_images_refuse_what_does_not_fit(train, test, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Images(*train, *test)


def test_digits_are_all_there_once_and_always_in_the_same_order() -> None:
    from sklearn.datasets import load_digits

    ours, source = digits(), load_digits()
    assert ours.train_images.shape == (1297, 1, 8, 8)
    assert ours.test_images.shape == (500, 1, 8, 8)
    images = np.concatenate([ours.train_images, ours.test_images]).reshape(-1, 64)
    labels = np.concatenate([ours.train_labels, ours.test_labels])
    rows = np.column_stack([images * 16, labels])
    expected = np.column_stack([source.data, source.target])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    assert images.min() == 0.0
    assert images.max() == 1.0
    assert not np.array_equal(labels, source.target)  # shuffled
    np.testing.assert_array_equal(digits().test_images, ours.test_images)


def test_every_class_of_digits_is_in_both_parts_in_like_numbers() -> None:
    ours = digits()
    counts = np.bincount(ours.test_labels, minlength=10)
    assert counts.min() >= 35
    assert np.bincount(ours.train_labels).min() >= 110
