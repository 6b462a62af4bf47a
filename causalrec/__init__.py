"""What a recommendation caused: causal inference on click logs whose confounders are words.

The verbs, in the order of use: ``read_log``, ``embed``, ``identify``, ``estimate``, ``refute``, ``uplift``,
``report``. Names are imported on first use, so that ``import causalrec`` loads nothing heavy.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "read_log": "reading",
    "ImpressionLog": "log",
    "embed": "represent",
    "TextEmbedder": "represent",
    "Block": "blocks",
    "identify": "identify",
    "Plan": "identify",
    "estimate": "estimate",
    "Fit": "estimate",
    "DoublyRobust": "estimate",
    "IPW": "estimate",
    "Clip": "nuisance",
    "Correction": "estimate",
    "SimilarTexts": "estimate",
    "LearningCurve": "estimate",
    "OmittedVariable": "estimate",
    "project_propensity": "estimate",
    "instrument_like": "estimate",
    "estimate_arms": "estimate",
    "ArmsFit": "estimate",
    "dose_response": "estimate",
    "DoseResponse": "estimate",
    "estimate_instrument": "estimate",
    "InstrumentFit": "estimate",
    "segments": "estimate",
    "Segments": "estimate",
    "SLearner": "estimate",
    "TLearner": "estimate",
    "WordEffects": "estimate",
    "XLearner": "estimate",
    "Folds": "nuisance",
    "Nuisances": "nuisance",
    "NuisanceRecipe": "nuisance",
    "RidgeLogistic": "nuisance",
    "SuperLearner": "nuisance",
    "LexicalStyle": "represent",
    "WordNgrams": "represent",
    "refute": "check",
    "to_dowhy": "check",
    "DowhyView": "check",
    "Checks": "check",
    "group_sensitivity": "check",
    "GroupSensitivity": "check",
    "UpliftCurve": "uplift",
    "uplift": "uplift",
    "HeldOut": "uplift",
    "choose_model": "uplift",
    "ModelChoice": "uplift",
    "Calibration": "uplift",
    "target": "uplift",
    "Targeting": "uplift",
    "Fairness": "uplift",
    "explain": "uplift",
    "Explanation": "uplift",
    "cold_start": "uplift",
    "ColdStart": "uplift",
    "finetune": "finetune",
    "Ranker": "finetune",
    "Training": "finetune",
    "Head": "finetune",
    "Weighing": "finetune",
    "RandomData": "finetune",
    "Auto": "finetune",
    "Naive": "finetune",
    "IPS": "finetune",
    "SNIPS": "finetune",
    "DR": "finetune",
    "DRJL": "finetune",
    "MRDR": "finetune",
    "POEM": "finetune",
    "BanditNet": "finetune",
    "UpliftWeighted": "finetune",
    "position_curve": "finetune",
    "Examination": "finetune",
    "platt_cross_fitted": "finetune",
    "Frozen": "finetune",
    "LoRA": "finetune",
    "IA3": "finetune",
    "PrefixTuning": "finetune",
    "PromptTuning": "finetune",
    "FullTuning": "finetune",
    "AdaLoRA": "finetune",
    "distil": "finetune",
    "Distilled": "finetune",
    "export_onnx": "finetune",
    "ExportReport": "finetune",
    "FastEncoder": "finetune",
    "report": "report",
    "datasets": "datasets",
    "simulate": "datasets",
    "save": "saved",
    "load": "saved",
    "CausalRecError": "errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'causalrec' has no attribute {name!r}; it has {sorted(_HOME)}")
    module = import_module(f"causalrec.{home}")
    value = module if name == home and name == "datasets" else getattr(module, name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """A verb and the sub-package that holds it share their name; as an attribute the name is the verb.

    The import system binds a sub-package to its parent when it is first loaded; this binds the verb instead.
    ``from causalrec.estimate import DoublyRobust`` finds the sub-package as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _HOME:
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
