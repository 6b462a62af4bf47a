"""What did recommending cause? ATE, ATT, ATO and group effects, clustered by user."""

from causalrec.estimate.arms import ArmsFit, estimate_arms
from causalrec.estimate.arrays import IPW, DoublyRobust
from causalrec.estimate.bias_aware import BiasAware, LearningCurve, OmittedVariable, SimilarTexts
from causalrec.estimate.correction import Correction, PairCorrection
from causalrec.estimate.dose import DoseResponse, dose_response
from causalrec.estimate.fit import Fit, estimate
from causalrec.estimate.groups import GroupEffects
from causalrec.estimate.instrument import InstrumentFit, estimate_instrument
from causalrec.estimate.metalearners import SLearner, TLearner, XLearner
from causalrec.estimate.segments import Segments, segments
from causalrec.estimate.ti import instrument_like, project_propensity
from causalrec.estimate.word_effects import WordEffects

__all__ = [
    "IPW",
    "ArmsFit",
    "BiasAware",
    "Correction",
    "DoseResponse",
    "DoublyRobust",
    "Fit",
    "GroupEffects",
    "InstrumentFit",
    "LearningCurve",
    "OmittedVariable",
    "PairCorrection",
    "SLearner",
    "Segments",
    "SimilarTexts",
    "TLearner",
    "WordEffects",
    "XLearner",
    "dose_response",
    "estimate",
    "estimate_arms",
    "estimate_instrument",
    "instrument_like",
    "project_propensity",
    "segments",
]
