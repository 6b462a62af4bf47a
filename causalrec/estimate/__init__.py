"""What did recommending cause? ATE, ATT, ATO and group effects, clustered by user."""

from causalrec.estimate.arrays import IPW, DoublyRobust
from causalrec.estimate.fit import Fit, estimate
from causalrec.estimate.groups import GroupEffects

__all__ = ["IPW", "DoublyRobust", "Fit", "GroupEffects", "estimate"]
