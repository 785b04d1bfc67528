"""Small networks as members: what they say is what they compute, and the batch is each of them alone."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from mindworks.agents.society import (
    Democracy,
    Liar,
    Mindstorm,
    Question,
    Readers,
    ReadersConfig,
    Society,
    hear,
    shortlist,
    train_readers,
)
from mindworks.data import digits
from mindworks.errors import InputError

CHOICES = tuple("0123456789")
SMALL = ReadersConfig(steps=60, lr=3e-2)
IMAGES = digits()
PIXELS, LABELS = IMAGES.train_images[:200, 0], IMAGES.train_labels[:200]
SHOWN, TRUTHS = IMAGES.test_images[:60, 0], [str(label) for label in IMAGES.test_labels[:60]]


@pytest.fixture(scope="module")
def readers() -> Readers:
    return train_readers(PIXELS, LABELS, members=16, seed=3, config=SMALL)


def questions(readers: Readers, text: str = "Which digit is it?") -> list[Question]:
    """One per image shown."""
    return [Question(text, CHOICES, sight, str(i)) for i, sight in enumerate(readers.look(SHOWN))]


def accuracy(transcripts: list) -> float:
    """Share of right answers."""
    return float(np.mean([t.answer == truth for t, truth in zip(transcripts, TRUTHS, strict=True)]))


def test_members_say_what_their_networks_compute(readers: Readers) -> None:
    probabilities = readers.probabilities(SHOWN)  # [N, B, K]
    for place, member in enumerate(readers.members()):
        for image, question in enumerate(questions(readers)[:5]):
            heard = hear(member.speak(question), CHOICES)
            assert heard.answer == str(int(probabilities[place, image].argmax()))
            best = float(probabilities[place, image].max())
            assert abs(heard.confidence - best) <= min(abs(level - best) for level in (0.25, 0.5, 0.75, 0.95)) + 1e-6


def test_a_narrowed_question_is_understood_from_its_text(readers: Readers) -> None:
    probabilities = readers.probabilities(SHOWN)[2]
    asked = questions(readers, shortlist("Look again.", ("1", "7")))
    for row, question in zip(probabilities, asked, strict=True):
        heard = hear(readers.members()[2].speak(question), CHOICES)
        assert heard.answer == ("1" if row[1] >= row[7] else "7")
        share = float(row[[1, 7]].max() / row[[1, 7]].sum())
        assert abs(heard.confidence - share) <= 0.25


def test_an_image_is_evidence_too(readers: Readers) -> None:
    member, batched = readers.members()[5], questions(readers)
    for image, question in list(zip(SHOWN, batched, strict=True))[:8]:
        assert member.speak(Question("Which digit is it?", CHOICES, image)) == member.speak(question)


def test_each_network_sees_its_patch_only(readers: Readers) -> None:
    row, column = readers.corners[0]
    hidden = SHOWN.copy()
    hidden[:, row : row + 3, column : column + 3] = 0
    outside = SHOWN.copy()
    mask = np.ones((8, 8), dtype=bool)
    mask[row : row + 3, column : column + 3] = False
    outside[:, mask] = 0
    whole = readers.probabilities(SHOWN)[0]
    assert torch.allclose(readers.probabilities(outside)[0], whole)
    assert not torch.allclose(readers.probabilities(hidden)[0], whole)


def test_the_batch_is_each_network_alone(readers: Readers) -> None:
    alone = train_readers(PIXELS, LABELS, members=2, seed=3, config=SMALL)
    assert alone.corners == readers.corners[:2]
    assert torch.allclose(alone.theta, readers.theta[:2], rtol=1e-3, atol=1e-4)
    module = readers.network.module(readers.theta[7])
    seen = readers.patches(torch.tensor(SHOWN))[7]
    assert torch.allclose(module(seen).softmax(-1), readers.probabilities(SHOWN)[7], atol=1e-6)


def test_training_lowers_each_members_loss() -> None:
    def losses(steps: int) -> torch.Tensor:
        trained = train_readers(PIXELS, LABELS, members=4, seed=3, config=ReadersConfig(steps=steps, lr=3e-2))
        picked = trained.probabilities(PIXELS)[:, torch.arange(len(LABELS)), torch.as_tensor(LABELS)]
        return -picked.log().mean(1)

    assert (losses(60) < losses(1) - 0.5).all()


def test_the_same_seed_gives_the_same_networks() -> None:
    first, again, other = (train_readers(PIXELS, LABELS, 3, seed, ReadersConfig(steps=3)) for seed in (1, 1, 2))
    assert torch.equal(first.theta, again.theta)
    assert not torch.equal(first.theta, other.theta)


def test_a_society_knows_more_than_its_members(readers: Readers) -> None:
    society, asked = Society(readers.members()), questions(readers)
    transcripts = society.ask_all(asked, Democracy())
    said = np.array([[hear(m.text, CHOICES).answer for m in t.messages(1)] for t in transcripts])
    members = (said == np.array(TRUTHS)[:, None]).mean(0)
    assert accuracy(transcripts) > members.mean() + 0.15
    assert accuracy(society.ask_all(asked, Mindstorm())) > members.mean() + 0.15


def test_a_changed_digit_in_every_text_changes_the_answers(readers: Readers) -> None:
    class Corrupted:
        """Its digits arrive five too high."""

        def __init__(self, member: object, place: int) -> None:
            self.member, self.name = member, f"reader {place}"

        def speak(self, question: Question) -> str:
            return re.sub(r"it is (\d)", lambda found: f"it is {(int(found[1]) + 5) % 10}", self.member.speak(question))

    members = [Corrupted(member, place) for place, member in enumerate(readers.members())]
    asked = questions(readers)
    honest, corrupted = (Society(who).ask_all(asked, Democracy()) for who in (readers.members(), members))
    assert accuracy(corrupted) < 0.2 < accuracy(honest)
    votes = [(a.answer, b.answer) for a, b in zip(honest, corrupted, strict=True)]
    assert np.mean([(int(a or 0) + 5) % 10 == int(b or 0) for a, b in votes]) > 0.9  # all but ties


def test_a_society_of_liars_is_wrong(readers: Readers) -> None:
    liars = Society([Liar(member) for member in readers.members()])
    assert accuracy(liars.ask_all(questions(readers), Democracy())) < 0.2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"labels": LABELS[:5]}, "labels must be one per image, 200"),
        ({"labels": LABELS - 1}, "labels must not be negative, got -1"),
        ({"images": PIXELS[0]}, r"images must be \[B, R, C\]"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "labels must be one per image, 0"),
        ({"members": 0}, "members must be at least 1, got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"config": ReadersConfig(patch=9)}, "patch must fit"),
    ],
)
def test_bad_training_data_is_refused(arguments: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        train_readers(**({"images": PIXELS, "labels": LABELS, "members": 1} | arguments))


def test_bad_settings_and_questions_are_refused(readers: Readers) -> None:
    for name, value in (("hidden", 0), ("steps", 0), ("lr", 0.0)):
        with pytest.raises(InputError, match=f"{name} must.*got {value}"):
            ReadersConfig(**{name: value})
    with pytest.raises(InputError, match="choices must be one per class, 10, got 4"):
        readers.members()[0].speak(Question("Which?", tuple("ABCD"), readers.look(SHOWN[:1])[0]))


def test_societies_load_without_torch() -> None:
    script = "import sys; from mindworks.agents.society import Democracy; print({'torch', 'numpy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
