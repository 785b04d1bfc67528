"""The order of a Rényi bound changes what is believed, from covering all mass to seeking one mode, and what is done.

Sajid, Faccio, Da Costa, Parr, Schmidhuber and Friston, "Bayesian Brains and the Rényi Divergence", Neural Computation
34(4), 2022, arXiv:2107.05438.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from mindworks.errors import require, require_at_least
from mindworks.lab import Check, RunLog, Study, interval

ALPHAS = (1e-6, 0.5, 1.0, 2.0, 10.0, 1e9)  # the paper's, with 1 for 0.99999, its code's stand-in
LAW_ALPHAS = (0.001, 0.1, 0.5, 0.9, 1.0, 2.0, 10.0, 100.0)
MIXTURE_ALPHAS = (0.001, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 1.0, 2.0, 20.0, 100.0)
CORRELATION, LAW_COLUMNS = 0.9, ("alpha", "variance", "law", "divergence")
QUADRATURE = {"gradient": "quadrature", "samples": 129}  # 300 points give the same widths to 1e-7 for alpha <= 2
# What is corrected of the published bandit, one thing at a time and all together.
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "rule corrected": {"rule": "corrected"},
    "likelihood exact": {"likelihood": "exact"},
    "bound exact": QUADRATURE,
    "likelihood and bound exact": {"likelihood": "exact", **QUADRATURE},
    "all corrected": {"rule": "corrected", "likelihood": "exact", **QUADRATURE},
}


@dataclass(frozen=True)
class Config:
    """Closed forms, best fits, and agents of six orders on three arms."""

    pulls: int = 900
    """pulls of every agent; statistics are over the second half"""
    samples: int = 300
    """draws of q per update of the agents that use draws"""
    grid: int = 161
    """points per axis for the two-dimensional fits"""
    contour_step: float = 0.2
    """step of the mean in the maps of the bound; that of the standard deviation is half of it"""
    observations: int = 1000
    """rewards of each arm behind the maps of the bound"""

    def __post_init__(self) -> None:
        require_at_least(self, 8, "pulls")
        require_at_least(self, 2, "samples", "observations")
        require_at_least(self, 101, "grid")
        require(0 < self.contour_step <= 2, f"contour_step must be in (0, 2], got {self.contour_step}")


def run(config: Config, seeds: list[int], log: RunLog) -> dict:
    """Every part and every variant of the bandit is a stage; seeds are runs of the bandit and draws of data."""
    import torch

    torch.set_num_threads(1)  # the tensors are small
    data: dict[str, Any] = {
        "law": log.stage("law", partial(mean_field_law, config)),
        "mixture": log.stage("mixture", partial(mixture_fits, seeds[0])),
        "linear": log.stage("linear", partial(linear_gaussian, seeds)),
        "maps": log.stage("maps", partial(multimodal_maps, config, seeds[0])),
        "bandit": {},
    }
    for i, name in enumerate(VARIANTS):
        data["bandit"][name] = log.stage(f"bandit-{i}", partial(bandit, config, seeds, name))
    return data


def mean_field_law(config: Config, log: RunLog) -> dict:
    """The best mean-field normal for two correlated normals, beside the closed form."""
    import torch
    from torch.distributions import MultivariateNormal

    from mindworks.inference import fit_renyi, mean_field_variance

    covariance = torch.tensor([[1, CORRELATION], [CORRELATION, 1]], dtype=torch.float64)
    target = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    fit = fit_renyi(
        target.log_prob,
        [(-7.5, 7.5)] * 2,
        LAW_ALPHAS,
        family="mean_field",
        restarts=4,
        generator=torch.Generator().manual_seed(0),
        points=config.grid,
    )
    curve = [10 ** (k / 20) for k in range(-60, 41)]
    return {
        "alpha": LAW_ALPHAS,
        "variance": fit.q().stddev.square(),
        "law": [mean_field_variance(alpha, CORRELATION) for alpha in LAW_ALPHAS],
        "divergence": fit.divergence.amin(1),
        "curve": [curve, [mean_field_variance(alpha, CORRELATION) for alpha in curve]],
    }


def mixture_fits(seed: int, log: RunLog) -> dict:
    """The best normal for a mixture of two, every local optimum found, and where the best one changes."""
    import torch

    from mindworks.inference import NormalMixture, fit_renyi, switch_point

    target = NormalMixture.of([[0.6, 0.4]], [[-2, 3]], [[0.8, 1]])[0]
    generator = torch.Generator().manual_seed(seed)

    def log_density(s: torch.Tensor) -> torch.Tensor:
        return target.log_density_and_score(s)[0]

    fit = fit_renyi(log_density, (-25, 25), MIXTURE_ALPHAS, generator=generator)
    switch = switch_point(log_density, (-25, 25), 0.75, 0.9, generator=generator)
    s = torch.linspace(-6, 7, 261, dtype=torch.float64)
    return {
        "alpha": MIXTURE_ALPHAS,
        "mean": fit.q().mean,
        "std": fit.q().stddev,
        "optima": [fit.optima(i) for i in range(len(MIXTURE_ALPHAS))],
        "switch": float(switch.alpha),
        "branches": switch.optima(),
        "density": {"s": s, "target": log_density(s).exp(), "fits": fit.q().log_prob(s.unsqueeze(-1)).exp().T},
    }


def linear_gaussian(seeds: list[int], log: RunLog) -> dict:
    """The univariate system: its closed form beside quadrature on the data of every seed, and maps on those of one."""
    import torch
    from torch.distributions import Normal

    from mindworks.inference import LinearGaussian, RenyiBound

    x = torch.arange(0, 20, 1.1, dtype=torch.float64)
    draws = [torch.randn(x.shape, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
    system = LinearGaussian(x, 0.4 * x + torch.stack(draws))
    alpha = torch.tensor([0, 1e-6, 0.5, 0.99999, 1, 1.00001, 2, 10, 100, 1e9, inf], dtype=torch.float64)
    mean = torch.tensor([0.33, 0.39, 0.4, 0.45], dtype=torch.float64).reshape(-1, 1, 1)
    variance = torch.tensor([1e-5, 1e-4, 3e-4, 1e-3, 2e-3], dtype=torch.float64).reshape(-1, 1)
    q = Normal(mean, variance.sqrt().expand(-1, len(seeds)))
    closed = system.renyi_bound(q.mean, q.variance, alpha.reshape(-1, 1, 1, 1))
    quadrature = torch.stack([RenyiBound(order)(system.log_joint, q) for order in alpha])
    both = closed.isfinite() & quadrature.isfinite()
    return {
        "worst": (closed - quadrature)[both].abs().max(),
        "disagreements": (closed.isinf() != quadrature.isinf()).sum(),
        "infinite": closed.isinf().sum(),
        "cases": closed.numel(),
        **linear_maps(LinearGaussian(x, 0.4 * x + draws[0])),
    }


def linear_maps(system: Any) -> dict:
    """The bound over alpha, and the ELBO over a Gamma prior's shape, by q's mean and by its variance."""
    import torch

    mean = torch.linspace(0.33, 0.45, 61, dtype=torch.float64)
    variance = torch.logspace(-5, -2.7, 61, dtype=torch.float64)
    alpha = torch.logspace(-2, 2, 61, dtype=torch.float64)
    shape = torch.linspace(0.05, 5, 61, dtype=torch.float64)
    fine = torch.logspace(-6, -2.5, 4001, dtype=torch.float64)
    best = system.renyi_bound(0.4, fine, alpha[::15, None]).argmax(1)
    best_gamma = system.gamma_elbo(0.4, fine, shape[::15, None], 0.5).argmax(1)
    return {
        "posterior": [system.posterior_mean, system.posterior_variance],
        "axes": {"mean": mean, "variance": variance, "alpha": alpha, "shape": shape},
        "maps": {
            "alpha_mean": system.renyi_bound(mean, 1e-4, alpha[:, None]),
            "alpha_variance": system.renyi_bound(0.4, variance, alpha[:, None]),
            "shape_mean": system.gamma_elbo(mean, 1e-4, shape[:, None], 0.5),
            "shape_variance": system.gamma_elbo(0.4, variance, shape[:, None], 0.5),
        },
        "limit": system.alpha_limit(variance),
        "best_variance": {
            "alpha": alpha[::15],
            "of_alpha": fine[best],
            "shape": shape[::15],
            "of_shape": fine[best_gamma],
        },
    }


def multimodal_maps(config: Config, seed: int, log: RunLog) -> dict:
    """Maps of the bound over q's mean and deviation for the three arms, exact and as 1000 draws estimate it."""
    import torch

    from mindworks.inference import Likelihood, bound_map, log_joint, map_summary, published_arms

    rewards, priors = published_arms()
    generator = torch.Generator().manual_seed(seed)
    mean = torch.arange(7, 25, config.contour_step, dtype=torch.float64)
    std = torch.arange(0.5, 3.5, config.contour_step / 2, dtype=torch.float64)
    noise = torch.randn(1000, generator=generator, dtype=torch.float64)
    arms: list = []
    for arm in (2, 1, 0):  # the first arm last: its map is the one that is drawn
        shape = (config.observations,)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        likelihood = Likelihood.of_rewards(rewards[arm].draw(uniform, normal), "published")

        def joint(s: Any, prior: Any = priors[arm], likelihood: Any = likelihood) -> Any:
            return log_joint(s, prior, likelihood)[0]

        exact = bound_map(joint, mean, std, ALPHAS)
        arms.insert(0, map_summary(exact, bound_map(joint, mean, std, ALPHAS, noise=noise), mean, std))
    s = torch.linspace(5, 27, 221, dtype=torch.float64)
    return {"mean": mean, "std": std, "arms": arms, "bound": exact, "s": s, "log_joint": joint(s)}


def bandit(config: Config, seeds: list[int], variant: str, log: RunLog) -> dict:
    """Agents of every order in one variant: statistics over the second half of their pulls, `[alphas][seeds]`."""
    from mindworks.inference import BanditConfig, RenyiBandit, behavior, published_arms

    rewards, priors = published_arms()
    settings = BanditConfig(**{"samples": config.samples, **VARIANTS[variant]})
    history = RenyiBandit(rewards, priors, ALPHAS, seeds, settings).run(config.pulls)
    found = behavior(history, rewards, config.pulls // 2)
    best = int((rewards.moments()[0] / rewards.moments()[1]).argmax())
    return {**found, "best": found["fraction"][..., best]}


def averages(rows: dict, key: str) -> list[float]:
    """The mean over seeds for every alpha."""
    return [fmean(values) for values in rows[key]]


def best_arm(rows: dict) -> tuple[float, float]:
    """How often the best arm is pulled: the mean over alpha <= 1/2 and over alpha >= 1."""
    shares = averages(rows, "best")
    low = [share for alpha, share in zip(ALPHAS, shares, strict=True) if alpha <= 0.5]
    return fmean(low), fmean(shares[len(low) :])


def check(data: dict) -> list[Check]:
    """The sentences of the claim, each with its bar."""
    law, mixture, linear, agents = data["law"], data["mixture"], data["linear"], data["bandit"]
    off = [abs(variance[k] - v) for variance, v in zip(law["variance"], law["law"], strict=True) for k in (0, 1)]
    fits = list(zip(mixture["alpha"], mixture["mean"], mixture["std"], strict=True))
    seeking = [(mean, std) for alpha, mean, std in fits if alpha >= 1]
    rises = [after - before for before, after in zip(mixture["std"], mixture["std"][1:], strict=False)]
    width = dict(zip(ALPHAS, averages(agents["published"], "width"), strict=True))
    low, high = best_arm(agents["published"])
    corrected = best_arm(agents["rule corrected"])
    proper = dict(zip(ALPHAS, averages(agents["all corrected"], "pulled_width"), strict=True))
    rule = "bandit, published rule"
    ratios = [[x / y for x, y in zip(*pair, strict=True)] for pair in pairwise(agents["published"]["width"])]
    of_seed = list(zip(*agents["published"]["best"], strict=True))
    wide, narrow = (agents["all corrected"]["pulled_width"][ALPHAS.index(alpha)] for alpha in (1e-6, 2.0))
    even = [x / y for x, y in zip(wide, narrow, strict=True)]
    return [
        # the closed form and a search on a grid agreed to 1e-5, 2026-11-22
        Check("mean-field variance: largest difference from the closed form, eight alphas", max(off), "<=", 1e-3),
        # the same search, 8001 points, found 2.6045 at alpha 0.001; -1.980 to -1.999 and 0.801 to 0.828 from 0.9 up
        Check("mixture: standard deviation at alpha 0.001, distance from 2.605", abs(fits[0][2] - 2.605), "<=", 0.01),
        Check("mixture, alpha >= 1: distance of the mean from -2", max(abs(m + 2) for m, _ in seeking), "<=", 0.03),
        Check("mixture, alpha >= 1: smallest standard deviation", min(std for _, std in seeking), ">=", 0.8),
        Check("mixture, alpha >= 1: largest standard deviation", max(std for _, std in seeking), "<=", 0.83),
        Check("mixture: largest rise of the standard deviation with alpha", max(rises), "<=", 0),
        Check("mixture: alpha at which the best fit jumps, at least", mixture["switch"], ">=", 0.75),
        Check("mixture: alpha at which the best fit jumps, at most", mixture["switch"], "<=", 0.9),
        Check("linear Gaussian: largest difference of closed form and quadrature", linear["worst"], "<=", 1e-10),
        Check("linear Gaussian: cases finite in one and infinite in the other", linear["disagreements"], "==", 0),
        # pilot of 8 runs with 96 draws, 900 pulls: widths 4.09, 2.49, 1.57 and 1.40, shares .22 and .89; 2026-11-22
        Check(f"{rule}: width at alpha 1e-6 over 0.5", width[1e-6] / width[0.5], ">=", 1.3, ratios[0]),
        Check(f"{rule}: width at alpha 0.5 over 1", width[0.5] / width[1.0], ">=", 1.3, ratios[1]),
        Check(f"{rule}: width at alpha 1 over 2", width[1.0] / width[2.0], ">=", 1.05, ratios[2]),
        Check(f"{rule}: share of the best arm, alpha >= 1", high, ">=", 0.7, [fmean(row[2:]) for row in of_seed]),
        Check(f"{rule}: share of the best arm, alpha <= 0.5", low, "<=", 0.5, [fmean(row[:2]) for row in of_seed]),
        # what of it is the rule's, the likelihood's and the estimate's; pilots on seeds 100-119, 900 pulls, 2026-11-23:
        # a difference of -0.02 with the rule corrected, a ratio of 0.99 with all corrected
        Check(
            "bandit, rule corrected: share of the best arm, alpha >= 1 against <= 0.5",
            abs(corrected[1] - corrected[0]),
            "<=",
            0.1,
        ),
        Check(
            "bandit, all corrected: width of the pulled arm at 1e-6 over 2", proper[1e-6] / proper[2.0], "<=", 1.1, even
        ),
    ]


def one(**columns: Any) -> dict[str, list]:
    """A row of a table: one value per column."""
    return {name.replace("_", " "): [value] for name, value in columns.items()}


def table(data: dict) -> dict:
    """What the record keeps beside the checks."""
    law, mixture, linear, maps = data["law"], data["mixture"], data["linear"], data["maps"]
    best, after = linear["best_variance"], sorted(mixture["branches"], key=lambda row: row["std"])
    tables: dict[str, Any] = {
        "mean-field normal": {
            f"alpha {label(alpha)}": one(fitted_variance=variance[0], closed_form=v, divergence=divergence)
            for alpha, variance, v, divergence in zip(*(law[key] for key in LAW_COLUMNS), strict=True)
        },
        "normal for the mixture": {
            f"alpha {label(alpha)}": one(**moments(optima[0]), other_optima=others(optima))
            for alpha, optima in zip(mixture["alpha"], mixture["optima"], strict=True)
        }
        | {f"jump at alpha {mixture['switch']:.4f}": one(**moments(after[0]), other_optima=others(after))},
        "best variance of q at mean 0.4": {
            **{f"alpha {label(a)}": one(variance=v) for a, v in zip(best["alpha"], best["of_alpha"], strict=True)},
            **{f"Gamma shape {a:g}": one(variance=v) for a, v in zip(best["shape"], best["of_shape"], strict=True)},
        },
        "maps of the bound": {
            f"arm {arm + 1}, alpha {label(alpha)}": one(**row)
            for arm, rows in enumerate(maps["arms"])
            for alpha, row in zip(ALPHAS, rows, strict=True)
        },
    }
    for name, rows in data["bandit"].items():
        tables[f"bandit, {name}"] = {f"alpha {label(alpha)}": agents(rows, i) for i, alpha in enumerate(ALPHAS)}
    return tables


def moments(optimum: dict) -> dict:
    """Mean and standard deviation of a local optimum."""
    return {"mean": optimum["mean"], "std": optimum["std"]}


def others(optima: list[dict]) -> str:
    """The local optima that are not the best, as text."""
    return "; ".join(f"({row['mean']:.3f}, {row['std']:.3f})" for row in optima[1:]) or "none"


def agents(rows: dict, i: int) -> dict[str, list]:
    """The agents of one alpha: means over seeds, and the interval of how often the best arm is pulled."""
    means = {key: fmean(rows[key][i]) for key in ("width", "pulled_width", "best", "entropy", "sharpe", "regret")}
    low, high = interval(rows["best"][i])
    return one(**means, best_95_percent=[low, high])


def plot(data: dict, folder: Path) -> list[Path]:
    """Three figures: fits and agents, maps of the univariate system, maps of the bound for two modes."""
    import matplotlib.pyplot as plt

    drawn = {"renyi": overview, "renyi_linear": linear_figure, "renyi_multimodal": multimodal_figure}
    paths = []
    for name, draw in drawn.items():
        figure = draw(data, plt)
        figure.savefig(path := folder / f"{name}.svg", dpi=150)
        plt.close(figure)
        paths.append(path)
    return paths


def label(alpha: float) -> str:
    """An order, short enough for a tick."""
    return f"{alpha:g}".replace("e-0", "e-").replace("e+0", "e")


def overview(data: dict, plt: Any) -> Any:
    """The closed-form law, the mixture's fits and their jump, and what agents believe and do."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained")
    law, mixture = data["law"], data["mixture"]
    ax = axes[0][0]
    ax.plot(*law["curve"], "k", lw=1, label="closed form")
    ax.plot(law["alpha"], [row[0] for row in law["variance"]], "o", color="C0", label="best fit")
    ax.set(xscale="log", xlabel="α", ylabel="variance", title="Mean-field normal, correlation 0.9")
    ax.legend(frameon=False)
    ax, density = axes[0][1], mixture["density"]
    ax.fill_between(density["s"], density["target"], color="0.85", label="target")
    for i, alpha in enumerate((0.001, 0.5, 0.75, 0.8, 2.0)):
        fit = density["fits"][mixture["alpha"].index(alpha)]
        ax.plot(density["s"], fit, color=plt.cm.viridis(i / 4), label=f"{alpha:g}")
    ax.set(xlabel="s", ylabel="density", title="Best normal for a mixture, by α")
    ax.legend(frameon=False, fontsize=8)
    jump_panel(mixture, axes[0][2])
    agents_panels(data["bandit"], axes[1])
    return figure


def jump_panel(mixture: dict, ax: Any) -> None:
    """The standard deviation of every local optimum by alpha, and where the best one changes."""
    alphas = mixture["alpha"]
    for i, optima in enumerate(mixture["optima"]):
        ax.plot([i] * (len(optima) - 1), [row["std"] for row in optima[1:]], "o", mfc="none", color="0.5", ms=5)
    ax.plot([], [], "o", mfc="none", color="0.5", ms=5, label="other local optima")
    ax.plot(mixture["std"], "o", color="C0", ms=5, label="best")
    after = next(i for i, alpha in enumerate(alphas) if alpha > mixture["switch"])
    part = (mixture["switch"] - alphas[after - 1]) / (alphas[after] - alphas[after - 1])
    ax.axvline(after - 1 + part, color="C3", lw=1, label=f"jump at {mixture['switch']:.3f}")
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas], fontsize=8, rotation=45)
    ax.set(xlabel="α", ylabel="standard deviation", title="Its local optima")
    ax.legend(frameon=False, fontsize=8)


def agents_panels(variants: dict, axes: Any) -> None:
    """Width of the pulled arm's belief, share of the best arm, and entropy of choices, by alpha, for every variant."""
    ticks = range(len(ALPHAS))
    panels = {
        "pulled_width": ("standard deviation", "Belief about the arm pulled"),
        "best": ("share of pulls", "Pulls of the best arm"),
        "entropy": ("nats", "Entropy of a run's choices"),
    }
    for ax, (key, (unit, title)) in zip(axes, panels.items(), strict=True):
        for i, (name, rows) in enumerate(variants.items()):
            style = "o-" if name == "published" else "s-" if name == "all corrected" else "--"
            ax.plot(ticks, averages(rows, key), style, color=f"C{i}", ms=4, lw=1.4, label=name)
        ax.set_xticks(ticks, [label(alpha) for alpha in ALPHAS])
        ax.set(xlabel="α", ylabel=unit, title=title)
        ax.set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=8)


def linear_figure(data: dict, plt: Any) -> Any:
    """The bound by alpha, and with a Gamma prior by its shape, over q's mean and over its variance."""
    import numpy as np

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.8), layout="constrained", subplot_kw={"facecolor": "0.8"})
    linear = data["linear"]
    grids = linear["axes"]
    posterior = dict(zip(("mean", "variance"), linear["posterior"], strict=True))
    for ax, name in zip(axes.flat, linear["maps"], strict=True):
        across, up = name.split("_")
        values = np.ma.masked_invalid(np.array(linear["maps"][name], dtype=float).T)
        values = np.ma.maximum(values, np.percentile(values.compressed(), 2))
        image = ax.contourf(grids[across], grids[up], values, levels=24)
        image.set_rasterized(True)
        ax.axhline(posterior[up], color="w", lw=1, ls="--")
        if name == "alpha_variance":
            ax.plot(linear["limit"], grids[up], color="C3", lw=1.5)
            ax.set_xlim(grids[across][0], grids[across][-1])
        fixed = "variance 1e-4" if up == "mean" else "mean 0.4"
        kind = "Rényi bound" if across == "alpha" else "ELBO with a Gamma prior"
        ax.set(
            xscale="log" if across == "alpha" else "linear",
            yscale="log" if up == "variance" else "linear",
            xlabel="α" if across == "alpha" else "shape of the Gamma prior (rate 0.5)",
            ylabel=f"{up} of q",
            title=f"{kind}, {fixed}",
        )
        figure.colorbar(image, ax=ax, label="nats")
    return figure


def multimodal_figure(data: dict, plt: Any) -> Any:
    """The first arm's posterior with its best normals, and the bound over all normals for every alpha."""
    import numpy as np

    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained", subplot_kw={"facecolor": "0.8"})
    maps = data["maps"]
    s, height = np.array(maps["s"]), np.exp(np.array(maps["log_joint"]))
    axes[0][0].fill_between(s, height / (height.sum() * (s[1] - s[0])), color="0.85", label="posterior")
    for i, (alpha, row) in enumerate(zip(ALPHAS, maps["arms"][0], strict=True)):
        q = np.exp(-0.5 * ((s - row["mean"]) / row["std"]) ** 2) / (row["std"] * np.sqrt(2 * np.pi))
        axes[0][0].plot(s, q, color=plt.cm.viridis(i / 5), lw=1.3, label=f"α = {label(alpha)}")
        ax = axes.flat[i + 1]
        bound = np.ma.masked_invalid(np.array(maps["bound"][i], dtype=float).T)
        below = np.ma.maximum((bound - bound.max()) / min(alpha, 1), -6)
        image = ax.contourf(maps["mean"], maps["std"], below, np.linspace(-6, 0, 25))
        image.set_rasterized(True)
        ax.plot(row["mean"], row["std"], "r+", ms=10, mew=2)
        ax.set(xlabel="mean of q", ylabel="standard deviation", title=f"α = {label(alpha)}")
    figure.colorbar(image, ax=axes[0][3], label="nats below the best, over min(α, 1)")
    axes[0][0].set(xlabel="s", ylabel="density", title="Arm 1: posterior and best q", facecolor="w")
    axes[0][0].legend(frameon=False, fontsize=7)
    for arm, rows in enumerate(maps["arms"]):
        axes.flat[7].plot(range(len(ALPHAS)), [row["std"] for row in rows], "o-", ms=4, label=f"arm {arm + 1}")
    axes.flat[7].set_xticks(range(len(ALPHAS)), [label(alpha) for alpha in ALPHAS])
    axes.flat[7].set(xlabel="α", ylabel="standard deviation", title="Width of the best q", facecolor="w")
    axes.flat[7].legend(frameon=False)
    return figure


STUDY = Study(
    name="renyi",
    paper="arXiv:2107.05438",
    title="Bayesian Brains and the Rényi Divergence",
    year=2022,
    claim="a larger order of the Rényi bound makes beliefs narrower and choices greedier under the same prior",
    bibtex="""@article{sajid2022bayesian,
  title   = {Bayesian Brains and the R{\\'e}nyi Divergence},
  author  = {Sajid, Noor and Faccio, Francesco and Da Costa, Lancelot and Parr, Thomas
             and Schmidhuber, J{\\"u}rgen and Friston, Karl},
  journal = {Neural Computation},
  volume  = {34},
  number  = {4},
  pages   = {829--855},
  year    = {2022},
  eprint  = {2107.05438},
  archivePrefix = {arXiv}
}""",
    docs="docs/papers/renyi.md",
    config=Config,
    run=run,
    check=check,
    plot=plot,
    table=table,
    scales={
        "smoke": {"pulls": 16, "samples": 20, "grid": 101, "contour_step": 2.0, "observations": 50},
        "cpu": {},
        "paper": {"pulls": 5000},
    },
    seeds={"smoke": 2, "cpu": 20, "paper": 20},
)
