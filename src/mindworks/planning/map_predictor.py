"""Maps from first-person views, and planners that see no other map: trained end to end.

The task is that of Lee, Parisotto, Chaplot, Xing and Salakhutdinov, "Gated Path Planning Networks", ICML 2018,
arXiv:1806.06408, and of Wang et al., arXiv:2406.08404: RGB views come in, a network makes a map of them, and a planner
plans on this map. Here the views are those of the rooms alone, the cells of odd row and odd column, which are open in
every maze. Views from all open cells would give the map away by being there.

Shape legend: B mazes of H = 2 h + 1 rows and W = 2 w + 1 columns with h x w rooms; D = 4 directions; O orientations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mindworks.errors import require
from mindworks.planning.losses import planning_loss
from mindworks.planning.mazes import Mazes
from mindworks.planning.planner import Planner

DIRECTIONS = 4
SURE = 20.0  # the logit of cells that are known: sigmoid(-20) is 2e-9


def lattice(height: int, width: int) -> dict[str, Tensor]:
    """Which cells are `rooms`, `passages` between two, `pillars` between four, and `border`: bool `[H, W]` each.

    Raises `InputError` unless both sizes are odd and at least 3.
    """
    fits = min(height, width) >= 3 and height % 2 == width % 2 == 1
    require(fits, f"height and width must be odd and at least 3, got {height} by {width}")
    row, column = torch.arange(height)[:, None], torch.arange(width)[None]
    border = (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
    odd = row % 2 + column % 2
    return {"rooms": odd == 2, "passages": (odd == 1) & ~border, "pillars": (odd == 0) & ~border, "border": border}


class MapPredictor(nn.Module):
    """A convolutional network from the views of all rooms to the logit that a cell is open, for any size of maze.

    One encoder looks at every view. A room's features, those of its four views side by side, are put at its place on
    the map, and convolutions over the map let the cells between the rooms read them. Rooms are known to be open and the
    border to be closed. `view` is (height, width) of a view in pixels.
    """

    def __init__(
        self,
        view: tuple[int, int] = (24, 32),
        *,
        channels: tuple[int, int] = (16, 32),
        features: int = 32,
        hidden: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require(len(view) == 2 and min(view) >= 1, f"view must be a height and a width in pixels, got {view}")
        sizes = (*channels, features, hidden)
        require(len(channels) == 2 and min(sizes) >= 1, f"channels, features and hidden must be positive, got {sizes}")
        self.view = tuple(view)
        pixels = ((view[0] + 3) // 4) * ((view[1] + 3) // 4)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, channels[0], 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels[1] * pixels, features),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(DIRECTIONS * features, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )
        self.reset(generator)

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew: U(-b, b), with b = sqrt(6 / fan_in) for weights that a ReLU follows; biases 0."""
        for layer in (module for module in self.modules() if isinstance(module, (nn.Conv2d, nn.Linear))):
            bound = (6 / layer.weight[0].numel()) ** 0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            assert layer.bias is not None
            layer.bias.zero_()
        self.decoder[-1].weight.mul_(0.1)  # type: ignore[operator]  # starts undecided

    def forward(self, views: Tensor) -> Tensor:
        """Logits `[B, H, W]` that a cell is open, from `views[B, h, w, 4, height, width, 3]`: bytes, as rendered.

        Raises `InputError` for views of another shape or type.
        """
        shape = (DIRECTIONS, *self.view, 3)
        require(
            views.ndim == 7 and views.shape[3:] == shape and views.dtype == torch.uint8,
            f"views must be uint8 [B, h, w, {', '.join(map(str, shape))}], got {views.dtype} {tuple(views.shape)}",
        )
        batch, rows, columns = views.shape[:3]
        images = views.flatten(0, 3).permute(0, 3, 1, 2).to(next(self.parameters())) / 255 - 0.5
        features = self.encoder(images).reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)
        cells = lattice(2 * rows + 1, 2 * columns + 1)
        spread = features.new_zeros(batch, features.shape[1], *cells["rooms"].shape)
        spread[:, :, 1::2, 1::2] = features
        logits = self.decoder(spread)[:, 0]
        known = torch.where(cells["rooms"], SURE, -SURE).to(logits)
        return torch.where((cells["rooms"] | cells["border"]).to(logits.device), known, logits)


def map_loss(logits: Tensor, free: Tensor) -> Tensor:
    """Mean binary cross-entropy of `logits[B, H, W]` against `free[B, H, W]` over passages and pillars."""
    open_to_doubt = _undecided(logits, free)
    return nn.functional.binary_cross_entropy_with_logits(logits[:, open_to_doubt], free[:, open_to_doubt].to(logits))


def map_accuracy(logits: Tensor, free: Tensor) -> dict[str, float]:
    """Shares of passages and of pillars of `free[B, H, W]` (bool) that the sign of `logits[B, H, W]` tells right.

    A pillar that is open but walled in on four sides is in no view.
    """
    _undecided(logits, free)
    cells, right = lattice(*logits.shape[-2:]), (logits > 0) == free
    return {kind: float(right[:, cells[kind]].double().mean()) for kind in ("passages", "pillars")}


def _undecided(logits: Tensor, free: Tensor) -> Tensor:
    require(logits.ndim == 3, f"logits must be [B, H, W], got shape {tuple(logits.shape)}")
    require(free.shape == logits.shape, f"free must be {tuple(logits.shape)}, got shape {tuple(free.shape)}")
    cells = lattice(*logits.shape[-2:])
    return (cells["passages"] | cells["pillars"]).to(logits.device)


class EndToEnd(nn.Module):
    """A planner that sees the predicted map where it would see the true one: gradients reach the predictor through it.

    The map is the probability that a cell is open. `planner` takes inputs `[B, 1 + O, H, W]`.
    """

    def __init__(self, predictor: MapPredictor, planner: Planner) -> None:
        super().__init__()
        self.predictor, self.planner = predictor, planner

    def inputs(self, views: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        """The planner's inputs `[B, 1 + O, H, W]` and the map's logits `[B, H, W]`, from views and `goals[B, O, H, W]`.

        Raises `InputError` if the goals are not of the mazes' size.
        """
        logits = self.predictor(views)
        require(
            goals.ndim == 4 and goals.shape[0] == len(logits) and goals.shape[2:] == logits.shape[1:],
            f"goals must be [{len(logits)}, O, {logits.shape[1]}, {logits.shape[2]}], got shape {tuple(goals.shape)}",
        )
        return torch.cat([logits.sigmoid()[:, None], goals.to(logits)], 1), logits

    def forward(self, views: Tensor, goals: Tensor, **options: Any) -> Tensor:
        """What the planner gives on the predicted map, logits `[B, A, O, H, W]`; `options` are the planner's."""
        return self.planner(self.inputs(views, goals)[0], **options)

    def loss(
        self,
        views: Tensor,
        mazes: Mazes,
        layers: list[int],
        *,
        kind: str = "adaptive",
        map_weight: float = 0.0,
        shrink: float = 0.0,
    ) -> Tensor:
        """`planning_loss` at the layers `layers`, plus `map_weight` times `map_loss`; 0 trains from paths alone.

        `views[B, h, w, 4, height, width, 3]` are those of the rooms of `mazes`. `shrink` times the mean square of the
        logits of passages and pillars keeps them near zero: through the planner alone, a map that is sure of itself
        gets no gradient any more, right or wrong.
        """
        inputs, map_logits = self.inputs(views, mazes.goal_maps().to(views.device))
        logits = self.planner.logits(inputs, keep=layers)
        target, distances = mazes.target().to(logits), mazes.distances.to(logits.device)
        loss, free = planning_loss(logits, target, distances, layers, kind), mazes.free.to(logits.device)
        if map_weight:
            loss = loss + map_weight * map_loss(map_logits, free)
        if shrink:
            loss = loss + shrink * map_logits[:, _undecided(map_logits, free)].square().mean()
        return loss
