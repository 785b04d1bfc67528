"""Cases of reward-weighted regression with a closed form, and how far the iteration is from it.

Actions from a compact set, on a grid, and processes with several optimal actions. Rewards and first policies are drawn
per seed, so that a seed's numbers do not depend on which others run beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mindworks.core.finite_mdp import MDP, DeterministicMDP, FiniteMDP, garnet
from mindworks.errors import require
from mindworks.tabular.rwr import RewardWeightedRegression

PEAK, PLATEAU, TWO_PEAKS = range(3)
_SEEN = 1e-250  # far above where products round to multiples of the smallest number


def seeded_policies(mdp: MDP, seeds: Sequence[int], *leading: int) -> Tensor:
    """Policies `[seeds, *leading, S, A]` of uniform random weights, each seed's from a generator of its own."""
    return torch.stack([mdp.random_policy(leading, torch.Generator().manual_seed(seed)) for seed in seeds])


def bandit_policy(policy: Tensor, reward: Tensor, iterations: int) -> Tensor:
    """Where RWR on a bandit is after `iterations` from `policy[..., A]`: pi_n(a) is proportional to pi_0(a) r(a)^n."""
    return (policy.log() + iterations * reward.log()).softmax(-1)


def bandits(grid: int, seeds: Sequence[int]) -> tuple[DeterministicMDP, Tensor, Tensor]:
    """Rewards on `grid` actions in [0, 1]: the bandits `[seeds, 3]`, the actions, and widths `[seeds, 4]` of slopes.

    One peak, a plateau of width 0.2, and two peaks of one height. All fall off like exp(-x^2 / (2 width^2)): widths 0
    and 1 are those of peak and plateau, 2 and 3 of the two peaks.
    """
    draw = _draws(seeds, 5).unsqueeze(-1)
    action = torch.linspace(0, 1, grid, dtype=torch.float64)
    center, width = 0.3 + 0.4 * draw[:, 0], 0.05 + 0.03 * draw[:, 1:]
    distance = (action - center).abs()
    peak = distance / width[:, 0]
    plateau = (distance - 0.1).clamp_min(0) / width[:, 1]
    peaks = torch.minimum((action - 0.25).abs() / width[:, 2], (action - 0.75).abs() / width[:, 3])
    reward = torch.stack([peak, plateau, peaks], 1).square().div(-2).exp().unsqueeze(-2)  # [seeds, 3, S = 1, A]
    only = torch.zeros(reward.shape, dtype=torch.long)
    return DeterministicMDP(only, reward, 0.0), action, width.squeeze(-1)


def bandit_errors(grid: int, iterations: int, seeds: Sequence[int]) -> dict[str, Tensor]:
    """How far RWR on `bandits` is from its laws after `iterations` (at least 100), each `[seeds]`.

    From random densities: `density`, the largest relative error against `bandit_policy`; `plateau`, the largest change
    of the density over the plateau, given that the action is on it. From the uniform density: `value`, the largest
    error, from iteration 100 on, of V_n = sqrt(n / (n + 1)) for the peak; `far`, the probability of actions farther
    than 0.05 from the best one; `share`, the error of the left peak's probability, width over the sum of widths.
    Beside these `gap[3, iterations + 1]`, the mean over seeds of 1 - V_n from the uniform density.
    """
    require(iterations >= 100, f"iterations must be at least 100, got {iterations}")
    mdp, action, width = bandits(grid, seeds)
    method = RewardWeightedRegression(mdp)
    first = seeded_policies(mdp, seeds, 3)
    last = method.run(first, iterations).policy
    law = bandit_policy(first, mdp.reward, iterations)
    kept, was = (torch.where(mdp.reward == 1, p, 0.0)[:, PLATEAU] for p in (last, first))
    uniform = method.run(mdp.uniform_policy(), iterations)
    values, even = uniform.values[..., 0], uniform.policy.squeeze(-2)
    n = torch.arange(100, iterations + 1, dtype=torch.float64).unsqueeze(-1)
    far = (action - action[mdp.reward[:, PEAK, 0].argmax(-1)].unsqueeze(-1)).abs() > 0.05
    left = torch.where(action < 0.5, even[:, TWO_PEAKS], 0.0).sum(-1)
    return {
        "density": torch.where(law > _SEEN, (last / law - 1).abs(), 0.0).amax((1, 2, 3)),
        "plateau": (kept / kept.sum(-1, keepdim=True) - was / was.sum(-1, keepdim=True)).abs().amax((1, 2)),
        "value": (values[100:, :, PEAK] - (n / (n + 1)).sqrt()).abs().amax(0),
        "far": torch.where(far, even[:, PEAK], 0.0).sum(-1),
        "share": (left - width[:, 2] / (width[:, 2] + width[:, 3])).abs(),
        "gap": (1 - values).mean(1).mT,
    }


def tree(seeds: Sequence[int], actions: int = 4) -> DeterministicMDP:
    """A root, state 0, whose actions lead to bandits, states 1 to `actions`, whose arms end the episode: `[seeds]`.

    Arms pay at most 1, and many of them do, in two bandits at least; the others pay up to 0.8. The end pays nothing.
    """
    end = actions + 1
    successor = torch.full((end + 1, actions), end)
    successor[0] = torch.arange(1, end)
    pays, less = _draws(seeds, 2, actions, actions).unbind(1)
    arm = torch.where(pays < 0.4, 1.0, 0.8 * less)
    arm[:, [0, 1], [0, 1]] = 1.0
    reward = torch.nn.functional.pad(arm, (0, 0, 1, 1))
    return DeterministicMDP(successor.expand(reward.shape), reward, 0.9)


def tree_limit(mdp: DeterministicMDP, policy: Tensor) -> tuple[Tensor, Tensor]:
    """Where RWR ends on a `tree` from `policy[..., S, A]`: at the root `[..., A]`, and in the bandits `[..., A, A]`.

    Over paths the tree is one bandit, so pi_n(path) is proportional to pi_0(path) r(path)^n. In the limit the root's
    action a has pi_0(a) times the probability under pi_0 of a best arm behind it; best arms keep their shares among
    themselves. Bandits without a best arm are not reached in the limit: their rows are NaN.
    """
    best = torch.where(mdp.reward == 1, policy, 0.0)[..., 1:-1, :]
    behind = best.sum(-1)
    root = policy[..., 0, :] * behind
    return root / root.sum(-1, keepdim=True), best / behind.unsqueeze(-1)


def tie_errors(iterations: int, seeds: Sequence[int]) -> dict[str, Tensor]:
    """How far RWR is from its laws where several actions are optimal, after `iterations`, each `[seeds]`.

    On `tree`: `root` and `arms`, the largest error of the policy's limit; `value`, what the root's value lacks. On
    stochastic processes in which every action occurs twice: `twins`, the largest relative change of the ratio of the
    probabilities of two equal actions.
    """
    mdp = tree(seeds)
    first = seeded_policies(mdp, seeds)
    found = RewardWeightedRegression(mdp).run(first, iterations)
    root, arms = tree_limit(mdp, first)
    made = garnet(1, 10, 3, discount=0.5, seeds=seeds)
    transition, reward = made.transition.repeat_interleave(2, -2), made.reward.abs().repeat_interleave(2, -1)
    twins = FiniteMDP(transition, reward, 0.5)
    started = seeded_policies(twins, seeds, 1)
    ended = RewardWeightedRegression(twins).run(started, iterations).policy
    before, after = (policy.unflatten(-1, (-1, 2)) for policy in (started, ended))
    change = after[..., 0] / after[..., 1] / (before[..., 0] / before[..., 1]) - 1
    return {
        "root": (found.policy[:, 0] - root).abs().amax(-1),
        "arms": torch.where(arms.isnan(), 0.0, (found.policy[:, 1:-1] - arms).abs()).amax((-2, -1)),
        "value": found.gaps()[-1, :, 0],
        "twins": torch.where(after.amin(-1) > _SEEN, change.abs(), 0.0).amax((1, 2, 3)),
    }


def _draws(seeds: Sequence[int], *shape: int) -> Tensor:
    drawn = [torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(drawn)
