"""Where do I get a log? A simulator with known truth, and loaders of public data sets."""

from causalrec.datasets.hillstrom import (
    ConfoundedExperiment,
    confounded_hillstrom,
    hillstrom_text,
    load_hillstrom,
)
from causalrec.datasets.loaders import (
    Coat,
    demo_card,
    load_coat,
    load_demo,
    load_goodbooks,
    load_open_bandit,
    load_upworthy,
)
from causalrec.datasets.simulate import Simulation, simulate
from causalrec.datasets.sources import Source, SourceFile, sources

__all__ = [
    "Coat",
    "ConfoundedExperiment",
    "Simulation",
    "Source",
    "SourceFile",
    "confounded_hillstrom",
    "demo_card",
    "hillstrom_text",
    "load_coat",
    "load_demo",
    "load_goodbooks",
    "load_hillstrom",
    "load_open_bandit",
    "load_upworthy",
    "simulate",
    "sources",
]
