"""From a transformer to an ONNX graph: token ids of one length → unit vectors, its products in int8. Needs torch and onnx.

Activations of a transformer have a few channels that are much larger than all others, so that one int8 scale for all of them
rounds the rest away. What a channel is divided by before a product, the weights can be multiplied with: x W = (x / s)(s W).
With s_j = max|x_j|^α / max|W_j|^(1−α) both sides become even (SmoothQuant: Xiao et al. 2023, eq. 4). The scale of each
activation is then a constant found on calibration texts, so that a text's vector does not depend on its neighbours.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import nn

from causalrec.errors import RepresentationError
from causalrec.finetune.fast import INPUT, OUTPUT
from causalrec.represent.encoder import _load, _pool
from causalrec.represent.weights import ModelFiles

Ints = npt.NDArray[np.int64]
OPSET = 20
SMOOTHING = 0.7
"""α. On headlines the least cosine of MiniLM's int8 vectors was .980 without, .966 at .5, .994 at .7, .996 at .8, .995 at .9; on texts unlike those of the calibration .7 was the best."""
LEAST_SCALE = 1e-5
EXAMPLE = (2, 7)
"""Batch and length of the ids that the exporter traces; both are left open in the graph."""


class Sentence(nn.Module):
    """Token ids (b, length), unpadded → unit vectors (b, d)."""

    def __init__(self, model: nn.Module, pooling: str) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Pooled last states, divided by their length."""
        states = self.model(input_ids=input_ids).last_hidden_state
        return nn.functional.normalize(_pool(states, self.pooling), dim=1)


class Smoothed(nn.Module):
    """``(x / s)(s W)ᵀ + b``: a linear layer whose input channels are about equally wide."""

    def __init__(self, layer: nn.Linear, inverse: nn.Parameter) -> None:
        super().__init__()
        self.inverse, self.layer = inverse, layer
        layer.weight.data = layer.weight.data / inverse.data

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's own output."""
        return self.layer(x * self.inverse)  # type: ignore[no-any-return]


def write_graph(files: ModelFiles, batches: Sequence[Ints], target: Path, int8: bool) -> None:
    """Write the encoder in `files` as one ONNX file.

    Parameters
    ----------
    batches : sequence of (b, length) int64
        Token ids of the calibration texts.
    int8 : bool
        Whether linear layers multiply in int8 (weights: one scale a column); else everything is float32.

    Raises
    ------
    RepresentationError
        The model has a part that the exporter or the quantiser does not know.
    """
    _, _, model = _load(files.folder)
    model.set_attn_implementation("eager")  # the graph of the fused kernel has parts that no CPU kernel fuses again
    sentence = Sentence(model.requires_grad_(False).eval(), files.pooling).eval()
    if int8:
        smooth(sentence, batches)
    plain = target.with_suffix(".float.onnx") if int8 else target
    ids = torch.from_numpy(np.resize(batches[0][0], EXAMPLE))
    with _quietly(), _own_errors(files):
        shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
        torch.onnx.export(
            sentence, (ids,), str(plain), input_names=[INPUT], output_names=[OUTPUT], dynamo=True,
            dynamic_shapes={INPUT: shape}, external_data=False, opset_version=OPSET, verbose=False,
        )  # fmt: skip
        if int8:
            _to_int8(plain, target, batches)
            plain.unlink()


def smooth(sentence: Sentence, batches: Sequence[Ints]) -> None:
    """Even out, in place, the inputs of all linear layers; layers that read the same tensor share their scales."""
    layers = {name: m for name, m in sentence.model.named_modules() if isinstance(m, nn.Linear)}
    widest, groups = _inputs(sentence, layers, batches)
    for names in groups:
        weight = torch.stack([layers[n].weight.detach().abs().amax(dim=0) for n in names]).amax(dim=0)
        scale = widest[names[0]].clamp(min=LEAST_SCALE) ** SMOOTHING / weight.clamp(min=LEAST_SCALE) ** (1 - SMOOTHING)
        inverse = nn.Parameter(1 / scale.clamp(min=LEAST_SCALE), requires_grad=False)
        for name in names:
            parent, _, own = name.rpartition(".")
            setattr(sentence.model.get_submodule(parent), own, Smoothed(layers[name], inverse))  # type: ignore[operator]


def _inputs(
    sentence: Sentence, layers: dict[str, nn.Linear], batches: Sequence[Ints]
) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """max|x_j| (d,) of each linear layer's input over the texts; and names of the layers by the tensor that they read."""
    widest: dict[str, torch.Tensor] = {}
    readers: dict[int, list[str]] = {}
    alive: list[torch.Tensor] = []  # a tensor's id is its own as long as it lives

    def note(name: str, x: torch.Tensor) -> None:
        now = x.abs().reshape(-1, x.shape[-1]).amax(dim=0)
        widest[name] = torch.maximum(widest[name], now) if name in widest else now
        readers.setdefault(id(x), []).append(name)
        alive.append(x)

    hooks = [m.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0])) for name, m in layers.items()]
    try:
        for batch in batches:
            readers.clear()
            alive.clear()
            with torch.inference_mode():
                sentence(torch.from_numpy(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return widest, list(readers.values())


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The calibration texts, batch by batch."""

    def __init__(self, batches: Sequence[Ints]) -> None:
        self.rest = iter(batches)

    def get_next(self) -> dict[str, Ints] | None:
        """The next batch, None at the end."""
        batch = next(self.rest, None)
        return None if batch is None else {INPUT: batch}


def _to_int8(source: Path, target: Path, batches: Sequence[Ints]) -> None:
    """Products with constant weights in int8, one scale a column of weights and a constant one for the activations; embeddings stored as int8."""
    import onnx

    graph = onnx.load(str(source)).graph
    constant = {i.name for i in graph.initializer}
    of_two_activations = [n.name for n in graph.node if n.op_type == "MatMul" and n.input[1] not in constant]
    quantize_static(
        str(source), str(target), _Calibration(batches), quant_format=QuantFormat.QDQ, op_types_to_quantize=["MatMul", "Gather"],
        nodes_to_exclude=of_two_activations, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax, extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gather"]},
    )  # fmt: skip


@contextmanager
def _own_errors(files: ModelFiles) -> Iterator[None]:
    """A model that cannot be exported is an error of ours; a disk that is full stays what it is."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the exporter has many
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from error
            cause = cause.__cause__
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise RepresentationError(f"encoder {files.identity} cannot be exported to ONNX ({why}); go on with TextEmbedder, or take a BERT-like encoder.") from error


@contextmanager
def _quietly() -> Iterator[Any]:
    """Keep the exporter's and the quantiser's remarks on their own inner life out of the user's output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
