"""Who gets recommended, who clicks anyway? Cross-fitted nuisances, computed once and shared."""

from causalrec.nuisance.columns import DesignRecipe, learn_design
from causalrec.nuisance.nuisances import Nuisances, Problem, auc, fit_nuisances, refit_nuisances
from causalrec.nuisance.options import Clip, Folds, NuisanceRecipe, RidgeLogistic
from causalrec.nuisance.super_learner import SuperLearner

__all__ = [
    "Clip",
    "DesignRecipe",
    "Folds",
    "NuisanceRecipe",
    "Nuisances",
    "Problem",
    "RidgeLogistic",
    "SuperLearner",
    "auc",
    "fit_nuisances",
    "learn_design",
    "refit_nuisances",
]
