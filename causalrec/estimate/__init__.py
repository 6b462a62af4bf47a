"""What did recommending cause? ATE, ATT, ATO and group effects, clustered by user."""

from causalrec.estimate.arrays import IPW, DoublyRobust
from causalrec.estimate.bias_aware import BiasAware, LearningCurve, OmittedVariable, SimilarTexts
from causalrec.estimate.correction import Correction, PairCorrection
from causalrec.estimate.fit import Fit, estimate
from causalrec.estimate.groups import GroupEffects
from causalrec.estimate.ti import instrument_like, project_propensity

__all__ = [
    "IPW",
    "BiasAware",
    "Correction",
    "DoublyRobust",
    "Fit",
    "GroupEffects",
    "LearningCurve",
    "OmittedVariable",
    "PairCorrection",
    "SimilarTexts",
    "estimate",
    "instrument_like",
    "project_propensity",
]
