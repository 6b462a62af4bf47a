"""Whole analyses in one function each: what the command line runs."""

from causalrec.pipeline.effect import Analysis, analyse, findings, in_short
from causalrec.pipeline.stages import WIDTH, check_writable
from causalrec.pipeline.train import TrainedRun, gain_in_truth, train_log, trained_findings, trained_in_short
from causalrec.pipeline.whom import Economics, Targeted, target_log, targeted_findings, targeted_in_short

__all__ = [
    "WIDTH",
    "Analysis",
    "Economics",
    "Targeted",
    "TrainedRun",
    "analyse",
    "check_writable",
    "findings",
    "gain_in_truth",
    "in_short",
    "target_log",
    "targeted_findings",
    "targeted_in_short",
    "train_log",
    "trained_findings",
    "trained_in_short",
]
