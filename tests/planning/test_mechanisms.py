"""Moves by name, by geometry, and in the published order."""

from __future__ import annotations

import pytest

from mindworks.errors import InputError
from mindworks.planning.mechanisms import DIFFERENTIAL, MECHANISMS, MOORE, NEWS, Mechanism, find_mechanism

LETTERS = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1)}


@pytest.mark.parametrize(("mechanism", "orientations", "actions"), [(NEWS, 1, 4), (MOORE, 1, 8), (DIFFERENTIAL, 4, 3)])
def test_sizes(mechanism, orientations, actions):
    assert (mechanism.orientations, mechanism.actions) == (orientations, actions)
    assert len(mechanism.action_names) == actions
    assert all(len(row) == actions for row in mechanism.moves)


@pytest.mark.parametrize("mechanism", [NEWS, MOORE])
def test_a_compass_moves_where_its_names_say(mechanism):
    for name, move in zip(mechanism.action_names, mechanism.moves[0], strict=True):
        parts = [step for word, step in LETTERS.items() if word in name]
        assert move == (0, sum(step[0] for step in parts), sum(step[1] for step in parts))
    assert len(set(mechanism.moves[0])) == mechanism.actions


def test_the_order_is_the_published_one():
    assert NEWS.action_names == ("north", "east", "west", "south")
    assert MOORE.action_names == (*NEWS.action_names, "northeast", "northwest", "southeast", "southwest")
    assert MOORE.moves[0][:4] == NEWS.moves[0]
    assert [row[0][1:] for row in DIFFERENTIAL.moves] == [move[1:] for move in NEWS.moves[0]]
    assert [row[1][0] for row in DIFFERENTIAL.moves] == [1, 3, 0, 2]
    assert [row[2][0] for row in DIFFERENTIAL.moves] == [2, 0, 3, 1]


def test_a_drive_goes_ahead_and_turns_on_the_spot_by_a_right_angle():
    assert DIFFERENTIAL.action_names == ("forward", "right", "left")
    ahead = [row[0][1:] for row in DIFFERENTIAL.moves]
    for o, (forward, right, left) in enumerate(DIFFERENTIAL.moves):
        down, across = ahead[o]
        assert forward[0] == o
        assert right[1:] == left[1:] == (0, 0)
        assert ahead[right[0]] == (across, -down)  # clockwise, rows pointing down
        assert ahead[left[0]] == (-across, down)
        assert DIFFERENTIAL.moves[right[0]][2][0] == o


def test_a_mechanism_is_found_by_its_name_or_given_as_it_is():
    assert {name: find_mechanism(name) for name in MECHANISMS} == MECHANISMS
    own = Mechanism("rook", (((0, 0, 1), (0, 0, -1)),), ("east", "west"))
    assert find_mechanism(own) is own
    with pytest.raises(InputError, match=r"mechanism must be one of news, moore, diffdrive, got 'king'"):
        find_mechanism("king")
