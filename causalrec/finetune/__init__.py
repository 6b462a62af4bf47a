"""Train on clicks without learning the old recommender's bias: debiased losses on a transformer, and their evaluation."""

from importlib import import_module
from typing import Any

_HOME = {
    "finetune": "verb",
    "Ranker": "ranker",
    "Training": "options",
    "Head": "options",
    "Naive": "objectives",
    "IPS": "objectives",
    "SNIPS": "objectives",
    "DR": "objectives",
    "DRJL": "objectives",
    "MRDR": "objectives",
    "POEM": "objectives",
    "BanditNet": "objectives",
    "UpliftWeighted": "objectives",
    "Auto": "choice",
    "Weighing": "weighing",
    "RandomData": "weighing",
    "Evaluation": "evaluation",
    "position_curve": "examination",
    "Examination": "examination",
    "platt_cross_fitted": "calibration",
    "CalibrationOfPropensity": "calibration",
    "Round": "rounds",
    "Frozen": "adapters",
    "LoRA": "adapters",
    "IA3": "adapters",
    "PrefixTuning": "adapters",
    "PromptTuning": "adapters",
    "FullTuning": "adapters",
    "AdaLoRA": "adapters",
    "distil": "distillation",
    "Distilled": "distillation",
    "export_onnx": "export",
    "ExportReport": "export",
    "FastEncoder": "fast",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'causalrec.finetune' has no attribute {name!r}; it has {sorted(_HOME)}")
    return getattr(import_module(f"causalrec.finetune.{_HOME[name]}"), name)
