"""Planning on maps with deep networks: value iteration networks and what makes them deep, mazes, and scores."""

from mindworks.planning.connected_vin import ConnectedVIN
from mindworks.planning.dt_vin import DTVIN, DTVINConfig, paper_dt_vin
from mindworks.planning.evaluation import Score, evaluate
from mindworks.planning.gppn import GPPN, GPPNConfig
from mindworks.planning.highway_vin import HighwayVIN
from mindworks.planning.losses import planning_loss, supervised_layers
from mindworks.planning.map_predictor import EndToEnd, MapPredictor
from mindworks.planning.mazes import Mazes, generate, splits
from mindworks.planning.mechanisms import DIFFERENTIAL, MOORE, NEWS, Mechanism, find_mechanism
from mindworks.planning.planner import Plan, Planner
from mindworks.planning.training import Training, TrainingConfig, score
from mindworks.planning.value_iteration import value_iteration
from mindworks.planning.vin import VIN, VINConfig, informed_vin

__all__ = [
    "DIFFERENTIAL",
    "DTVIN",
    "GPPN",
    "MOORE",
    "NEWS",
    "VIN",
    "ConnectedVIN",
    "DTVINConfig",
    "EndToEnd",
    "GPPNConfig",
    "HighwayVIN",
    "MapPredictor",
    "Mazes",
    "Mechanism",
    "Plan",
    "Planner",
    "Score",
    "Training",
    "TrainingConfig",
    "VINConfig",
    "evaluate",
    "find_mechanism",
    "generate",
    "informed_vin",
    "paper_dt_vin",
    "planning_loss",
    "score",
    "splits",
    "supervised_layers",
    "value_iteration",
]
