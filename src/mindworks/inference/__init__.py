"""Inference by Rényi bounds: the bound itself, the best q of a family, the linear Gaussian model, a bandit."""

from mindworks.inference.bandit import BanditConfig, RenyiBandit, behavior, published_arms
from mindworks.inference.beliefs import Likelihood, NormalMixture, Rewards, log_joint
from mindworks.inference.fits import RenyiFit, fit_renyi, mean_field_variance, switch_point
from mindworks.inference.linear_gaussian import LinearGaussian
from mindworks.inference.maps import bound_map, map_summary
from mindworks.inference.renyi_bound import RenyiBound, exponential_mean

__all__ = [
    "BanditConfig",
    "Likelihood",
    "LinearGaussian",
    "NormalMixture",
    "RenyiBandit",
    "RenyiBound",
    "RenyiFit",
    "Rewards",
    "behavior",
    "bound_map",
    "exponential_mean",
    "fit_renyi",
    "log_joint",
    "map_summary",
    "mean_field_variance",
    "published_arms",
    "switch_point",
]
