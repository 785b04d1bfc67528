"""Our deep policies, ARS and DDPG: one run of one seed each, followed by the same evaluation at the same steps.

What counts is what `_learning.py` says: the policy of a checkpoint is the one whose last update had seen at most that
many steps; it plays greedily in a plain Gymnasium environment, with the observation normalisation of that moment, on
episodes whose seeds depend on the run's seed and the checkpoint alone. Neither the evaluation's steps nor its CPU
seconds count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from torch import nn

import mindworks.policies
from _learning import Recorder, Result, Task, measured
from mindworks.core.policy import Policy
from mindworks.envs import make_batch
from mindworks.policies import Training

Setting = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A ReLU network as it stands, linear without hidden layers, on `clip((obs - mean) / std)`.

    The head is the argmax for discrete actions; else tanh onto the bounds (`squash`) or clipping onto them.
    """

    layers: Sequence[tuple[np.ndarray, np.ndarray]]
    mean: np.ndarray
    std: np.ndarray
    clip: float
    squash: bool

    def act(self, obs: np.ndarray, space: gymnasium.Space[Any]) -> Any:
        """The greedy action at one observation."""
        hidden = np.clip((obs - self.mean) / self.std, -self.clip, self.clip)
        *body, (weight, bias) = self.layers
        for w, b in body:
            hidden = np.maximum(w @ hidden + b, 0)
        output = weight @ hidden + bias
        if isinstance(space, gymnasium.spaces.Discrete):
            return int(output.argmax())
        assert isinstance(space, gymnasium.spaces.Box)
        if self.squash:
            centre, width = (space.high + space.low) / 2, (space.high - space.low) / 2
            return (centre + width * np.tanh(output)).astype(np.float32)
        return np.clip(output, space.low, space.high).astype(np.float32)


class Ours:
    """One seed's policy of a learner, held as it is now: its parameters and its observation normalisation."""

    def __init__(self, learner: Any) -> None:
        self.actor = learner.actor(learner.theta.detach().clone().unsqueeze(1), stochastic=False)
        self.alive = np.ones(1, np.bool_)

    def act(self, obs: np.ndarray, space: gymnasium.Space[Any]) -> Any:
        """The greedy action at one observation."""
        action = self.actor(obs[None], self.alive)[0]
        return int(action) if isinstance(space, gymnasium.spaces.Discrete) else action


class Watched(Recorder):
    """A recorder of policies of any kind, whose copying costs no training time either."""

    def look(self, steps: int, policy: Callable[[], Any]) -> None:
        """`policy()` is current from `steps` steps on."""
        start = time.process_time()
        current = policy()
        self.cpu_s += time.process_time() - start
        self.see(steps, current)


def ours(task: Task, setting: Setting, seed: int) -> Result:
    """A learner of this library: `method` names its class, `hidden` its policy; the rest goes to its configuration."""
    options = {key: value for key, value in setting.items() if key not in ("method", "hidden")}
    for key, value in options.items():  # settings come from JSON too, which has no tuples
        options[key] = tuple(value) if isinstance(value, list) else value
    kind = getattr(mindworks.policies, setting["method"])
    config = getattr(mindworks.policies, setting["method"] + "Config")(**options)
    env, evaluation_env = make_batch(task.name, config.population), make_batch(task.name, 1)
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, setting["hidden"])
    learner = kind(policy, config, [seed])
    # evaluated here, not there: an interval that is never reached leaves one evaluation of one episode at the end
    training = Training(learner, env, evaluation_env, steps=task.steps, evaluate_every=task.steps * 1000)
    recorder = Watched(task, seed)

    def train() -> int:
        recorder.look(0, lambda: Ours(learner))
        while not training.done:
            training.advance()
            recorder.look(int(learner.steps[0]), lambda: Ours(learner))
        return int(learner.steps[0])

    return measured([recorder], train)


def ars(task: Task, setting: Setting, seed: int) -> Result:
    """Augmented random search from sb3-contrib: linear without `hidden`, else its ReLU network."""
    from sb3_contrib import ARS

    options = {key: value for key, value in setting.items() if key not in ("source", "normalize", "hidden")}
    env = _environment(task, setting["normalize"])
    if "hidden" in setting:
        model = ARS("MlpPolicy", env, seed=seed, policy_kwargs={"net_arch": setting["hidden"]}, **options)
    else:
        model = ARS("LinearPolicy", env, seed=seed, **options)
    return _follow(task, seed, model, lambda: _network(model.policy.action_net, env, "hidden" in setting))


def ddpg(task: Task, setting: Setting, seed: int) -> Result:
    """DDPG from stable-baselines3, one environment."""
    from stable_baselines3 import DDPG
    from stable_baselines3.common import noise as noises

    own = ("source", "normalize", "hidden", "noise", "noise_std", "noise_dt")
    options = {key: value for key, value in setting.items() if key not in own}
    env = _environment(task, setting["normalize"])
    actions = np.zeros(env.action_space.shape)
    std = actions + setting["noise_std"]
    noise: Any = noises.NormalActionNoise(actions, std)
    if setting["noise"] == "ou":
        noise = noises.OrnsteinUhlenbeckActionNoise(actions, std, dt=setting["noise_dt"])
    # Adam's fused form is the same arithmetic in fewer calls: a sixth less time per step
    network = {"net_arch": setting["hidden"], "optimizer_kwargs": {"fused": True}}
    if isinstance(options["train_freq"], list):  # JSON has no tuples
        options["train_freq"] = tuple(options["train_freq"])
    model = DDPG(
        "MlpPolicy", env, seed=seed, action_noise=noise, policy_kwargs=network, buffer_size=task.steps, **options
    )
    return _follow(task, seed, model, lambda: _network(model.actor.mu, env, True))


RIVALS: dict[str, Callable[[Task, Setting, int], Result]] = {"ars": ars, "ars_mlp": ars, "ddpg": ddpg}


def _environment(task: Task, normalize: bool) -> Any:
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = DummyVecEnv([lambda: gymnasium.make(task.name)])
    return VecNormalize(env, norm_obs=True, norm_reward=False) if normalize else env


def _network(net: nn.Module, env: Any, squash: bool) -> Network:
    """A copy of the linear layers of `net`, with the environment's observation normalisation."""
    layers = []
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().numpy().astype(np.float64)
            bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy().astype(np.float64)
            layers.append((weight, bias))
    if not hasattr(env, "obs_rms"):
        width = layers[0][0].shape[1]
        return Network(layers, np.zeros(width), np.ones(width), np.inf, squash)
    mean, std = env.obs_rms.mean.copy(), np.sqrt(env.obs_rms.var + env.epsilon)
    return Network(layers, mean, std, env.clip_obs, squash)


def _follow(task: Task, seed: int, model: Any, current: Callable[[], Network]) -> Result:
    """Let a model of stable-baselines3 learn; its policy changes between rollouts only."""
    from stable_baselines3.common.callbacks import BaseCallback

    recorder = Watched(task, seed)

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            recorder.look(self.num_timesteps, current)

        def _on_step(self) -> bool:
            return True

        def _on_training_end(self) -> None:
            recorder.look(self.num_timesteps, current)

    def train() -> int:
        model.learn(task.steps, callback=Watch(), log_interval=None)
        return int(model.num_timesteps)

    return measured([recorder], train)
