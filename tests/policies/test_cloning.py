"""Students do what their teacher does in the states they are shown, each by itself, whatever their architecture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.errors import InputError
from mindworks.policies import clone

S, N, K, D = 2, 3, 4, 3
BOX = ((-1.0, -2.0), (1.0, 0.5))
HEADS = {
    "discrete": Categorical(3),
    "reference": Categorical(3, reference=True),
    "continuous": Box(*BOX),
    "gaussian": Box(*BOX, gaussian=True),
}
every_head = pytest.mark.parametrize("head", HEADS)


def policy(head: str, *hidden: int, activation: str = "tanh") -> Policy:
    return Policy(MLP((D, *hidden, HEADS[head].outputs), activation), HEADS[head])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def school(teacher: Policy, student: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters of a teacher per seed, states `[S, K, D]`, and students to start from."""
    states = torch.rand(S, K, D, generator=generator(1), dtype=torch.float64)
    start = student.init(S, N, generator=generator(2), dtype=torch.float64)
    return 0.6 * normal(S, teacher.num_parameters), states, start


def distance(one: Policy, theta: Tensor, teacher: Policy, theta_teacher: Tensor, states: Tensor) -> Tensor:
    """The largest difference between what `theta[..., P]` and the teacher do in the states `[..., K, D]`."""
    return (one.features(theta, states) - teacher.features(theta_teacher, states)).abs().amax((-2, -1))


@every_head
@pytest.mark.parametrize("hidden", [(), (8,)], ids=["linear students", "deep students"])
def test_students_do_in_the_states_what_their_teacher_does(head, hidden):
    teacher, student = policy(head, 5, activation="relu"), policy(head, *hidden)
    theta_teacher, states, start = school(teacher, student)
    learned = clone(teacher, theta_teacher, states, student, start, steps=300, lr=5e-2)
    assert learned.shape == start.shape
    there = (theta_teacher.unsqueeze(1), states.unsqueeze(1))
    before, after = (distance(student, theta, teacher, *there) for theta in (start, learned))
    assert (after < 0.05).all(), after
    assert after.mean() < 0.1 * before.mean()
    elsewhere = 3 * normal(S, 1, 50, D, seed=3)
    assert (distance(student, learned, teacher, theta_teacher.unsqueeze(1), elsewhere) > 0.2).all()


@every_head
def test_greedy_actions_agree_after_cloning(head):
    teacher, student = policy(head, 5), policy(head, 6)
    theta_teacher, states, start = school(teacher, student)
    learned = clone(teacher, theta_teacher, states, student, start, steps=300, lr=5e-2)
    wanted = teacher.mode(theta_teacher.unsqueeze(1), states.unsqueeze(1))
    untaught, ours = (student.mode(theta, states.unsqueeze(1)) for theta in (start, learned))
    assert (untaught != wanted).any()
    torch.testing.assert_close(ours, wanted.expand_as(ours), rtol=0, atol=0.1)


@every_head
def test_states_of_their_own_teach_each_student_as_if_it_were_alone(head):
    teacher, student = policy(head, 5), policy(head, 4)
    theta_teacher, _, start = school(teacher, student)
    states = torch.rand(S, N, K, D, generator=generator(4), dtype=torch.float64)
    learned = clone(teacher, theta_teacher, states, student, start, steps=20, lr=1e-2)
    for s in range(S):
        for n in range(N):
            teaching = (theta_teacher[s : s + 1], states[s : s + 1, n], student, start[s : s + 1, n : n + 1])
            alone = clone(teacher, *teaching, steps=20, lr=1e-2)
            torch.testing.assert_close(learned[s, n], alone[0, 0], rtol=0, atol=1e-9)
    shared = states[:, :1].expand(S, N, K, D)
    torch.testing.assert_close(
        clone(teacher, theta_teacher, shared, student, start, steps=5, lr=1e-2),
        clone(teacher, theta_teacher, states[:, 0], student, start, steps=5, lr=1e-2),
        rtol=0,
        atol=1e-9,
    )


def loss(head: str, one: Policy, theta: Tensor, states: Tensor, teacher: Policy, theta_teacher: Tensor) -> Tensor:
    """What one student `theta[P]` minimises, by torch's own losses."""
    if head in ("discrete", "reference"):
        logits = one.logits(one.outputs(theta, states))
        return cross_entropy(logits, teacher.logits(teacher.outputs(theta_teacher, states)).softmax(-1))
    ours, wanted = one.features(theta, states), teacher.features(theta_teacher, states)
    return ours.shape[-1] * mse_loss(ours, wanted)


@every_head
def test_every_student_takes_the_steps_of_torchs_adam_on_its_own_loss(head):
    teacher, student = policy(head, 5), policy(head, 4)
    theta_teacher, states, start = school(teacher, student)
    learned = clone(teacher, theta_teacher, states, student, start, steps=7, lr=3e-2)
    for s in range(S):
        for n in range(N):
            theta = start[s, n].clone().requires_grad_()
            adam = torch.optim.Adam([theta], lr=3e-2)
            for _ in range(7):
                adam.zero_grad()
                loss(head, student, theta, states[s], teacher, theta_teacher[s]).backward()
                adam.step()
            torch.testing.assert_close(learned[s, n], theta.detach(), rtol=0, atol=1e-9)


def test_gaussian_students_learn_the_deviation_too():
    teacher, student = policy("gaussian"), policy("gaussian", 4)
    theta_teacher, states, start = school(teacher, student)
    theta_teacher[..., -2:] = torch.tensor([0.5, -1.0])
    learned = clone(teacher, theta_teacher, states, student, start, steps=300, lr=5e-2)
    torch.testing.assert_close(learned[..., -2:], theta_teacher[:, None, -2:].expand(S, N, 2), rtol=0, atol=0.02)


def test_no_steps_return_the_start_in_memory_of_its_own_and_inputs_are_left_as_they_were():
    teacher, student = policy("continuous", 5), policy("continuous", 4)
    inputs = school(teacher, student)
    kept = [tensor.clone() for tensor in inputs]
    for tensor in inputs:
        tensor.requires_grad_()
    theta_teacher, states, start = inputs
    still, moved = (clone(teacher, theta_teacher, states, student, start, steps=steps, lr=1e-2) for steps in (0, 3))
    assert torch.equal(still, start)
    assert not torch.equal(moved, start)
    still.zero_()
    moved.zero_()
    for tensor, before in zip(inputs, kept, strict=True):
        assert torch.equal(tensor, before)
        assert tensor.grad is None
    assert not still.requires_grad
    assert not moved.requires_grad


def test_single_precision_and_starts_that_are_views_will_do():
    teacher, student = policy("discrete", 5), policy("discrete", 4)
    theta_teacher, states, start = (tensor.float() for tensor in school(teacher, student))
    one = start[:, :1].expand(S, N, -1)
    learned = clone(teacher, theta_teacher, states, student, one, steps=5, lr=1e-2)
    assert learned.dtype == torch.float32
    torch.testing.assert_close(learned, learned[:, :1].expand_as(learned))
    turned = start.transpose(0, 1).contiguous().transpose(0, 1)
    expected = clone(teacher, theta_teacher, states, student, start, steps=5, lr=1e-2)
    torch.testing.assert_close(clone(teacher, theta_teacher, states, student, turned, steps=5, lr=1e-2), expected)


BOXED = policy("continuous", 4)
OTHER_OBSERVATIONS = Policy(MLP((D + 1, 2)), Box(*BOX))
OTHER_BOUNDS = Policy(MLP((D, 2)), Box((-1.0, -1.0), (1.0, 1.0)))


def start_of(student: Policy) -> Tensor:
    return torch.zeros(S, N, student.num_parameters)


def cloned(student: Policy = BOXED, states: Tensor | None = None, theta: Tensor | None = None, **settings) -> Tensor:
    states = torch.zeros(S, K, D) if states is None else states
    theta = start_of(student) if theta is None else theta
    return clone(
        BOXED, torch.zeros(S, BOXED.num_parameters), states, student, theta, **{"steps": 1, "lr": 1e-2, **settings}
    )


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: cloned(steps=-1), "steps.*-1"),
        (lambda: cloned(lr=0.0), r"lr.*0\.0"),
        (lambda: cloned(OTHER_OBSERVATIONS), r"student.*\(4, 2\)"),
        (lambda: cloned(OTHER_BOUNDS), r"student.*-1\.0, -1\.0"),
        (lambda: cloned(policy("gaussian")), "student.*gaussian=True"),
        (lambda: cloned(policy("discrete")), "student.*Categorical"),
        (lambda: cloned(theta=torch.zeros(S, N, 3)), rf"theta.*{BOXED.num_parameters}.*3\)"),
        (lambda: cloned(states=torch.zeros(S, K, D + 1)), "inputs.*3.*4"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
