"""For whom does it work, and whom should we target? Curves on held-out users."""

from causalrec.uplift.calibration import Calibration, calibrate
from causalrec.uplift.choice import ModelChoice, choose_model
from causalrec.uplift.cold_start import ColdStart, cold_start
from causalrec.uplift.curve import UpliftCurve, uplift
from causalrec.uplift.explain import Explanation, explain
from causalrec.uplift.fairness import Fairness
from causalrec.uplift.held_out import HeldOut
from causalrec.uplift.targeting import Targeting, target

__all__ = [
    "Calibration",
    "ColdStart",
    "Explanation",
    "Fairness",
    "HeldOut",
    "ModelChoice",
    "Targeting",
    "UpliftCurve",
    "calibrate",
    "choose_model",
    "cold_start",
    "explain",
    "target",
    "uplift",
]
