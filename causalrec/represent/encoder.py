"""One frozen transformer and its forward pass, arranged so that no work is done twice or on padding.

Texts are tokenised at once, equal token sequences are encoded once, and each batch holds sequences of one
length: nothing is padded, so no attention mask is needed. On a CPU each core takes batches of its own, and
the linear layers run on weights that oneDNN has packed beforehand, in float32. The transformers model does the forward pass as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError, ModelNotFoundError, RepresentationError
from causalrec.represent.weights import ModelFiles, missing_extra

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
CPU_TOKENS = 1024  # in a batch: the activations of a layer stay in cache; 512 to 4,096 are about as fast
GPU_TOKENS = 65_536


class Encoder:
    """A loaded model. Made by ``TextEmbedder`` on first use.

    Parameters
    ----------
    files : ModelFiles
    device : str or None
        None takes CUDA, else Apple's MPS, else the CPU.
    max_length : int
        Tokens beyond it are cut off; the model's own limit applies as well.
    batch_size : int or None
        Most texts in a batch; None lets a number of tokens decide.

    Raises
    ------
    MissingExtraError
        torch or transformers is not installed.
    ModelNotFoundError, RepresentationError, ArgumentError
        The files cannot be loaded, the model is no encoder, the device is not there.
    """

    def __init__(
        self, files: ModelFiles, device: str | None, max_length: int, batch_size: int | None
    ) -> None:
        config, self._tokenizer, self._model = _load(files.folder)
        self.files = files
        self.device = _device(device)
        self.batch_size = batch_size
        self._model.requires_grad_(False).eval().to(self.device)
        if self.device.type == "cpu":
            pack_linears(self._model)
        positions = getattr(config, "max_position_embeddings", None) or max_length
        self.max_length = int(min(max_length, self._tokenizer.model_max_length, positions))
        self.width = int(config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of each text, special tokens included, cut at ``max_length``; lone surrogates read as ``?``."""
        encoded = self._tokenizer(
            [text.encode("utf-8", "replace").decode() for text in texts],
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [tuple(ids) for ids in encoded["input_ids"]]

    def encode(self, tokens: Sequence[tuple[int, ...]]) -> Iterator[tuple[Ints, Floats]]:
        """Yield (positions in `tokens`, their unit vectors ``(b, d)``), longest sequences first.

        Parameters
        ----------
        tokens : sequence of distinct token sequences
        """
        lengths = np.array([len(ids) for ids in tokens])
        on_cpu = self.device.type == "cpu"
        batches = list(_batches(lengths, CPU_TOKENS if on_cpu else GPU_TOKENS, self.batch_size))
        jobs = ([tokens[i] for i in batch] for batch in batches)
        with _one_thread_each() if on_cpu else nullcontext(map) as run:
            yield from zip(batches, run(self._forward, jobs), strict=True)

    def _forward(self, tokens: list[tuple[int, ...]]) -> Floats:
        """Unit vectors ``(b, d)`` of b token sequences of one length."""
        import torch

        with torch.inference_mode():
            states = self._model(input_ids=torch.tensor(tokens, device=self.device)).last_hidden_state
            pooled = torch.nn.functional.normalize(_pool(states, self.files.pooling), dim=1)
        return pooled.cpu().numpy()


@contextmanager
def _one_thread_each() -> Iterator[Callable[..., Iterator[Floats]]]:
    """A parallel ``map`` whose workers, as many as torch has threads, run one batch on one thread each.

    Batches wait for each other nowhere, which is a little faster than several threads within each product,
    and much faster when other programs use the cores too. The thread count of torch is put back afterwards.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _batches(lengths: Ints, tokens: int, batch_size: int | None) -> Iterator[Ints]:
    """Positions in batches of one length each, longest first; at most `tokens` tokens or `batch_size`."""
    for length in np.unique(lengths)[::-1]:
        members = np.flatnonzero(lengths == length)
        size = batch_size or max(1, tokens // int(length))
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _pool(states: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a text from its tokens' states (b, length, d); there is no padding to leave out."""
    if pooling == "cls":
        return states[:, 0]
    return states.amax(dim=1) if pooling == "max" else states.mean(dim=1)


def _load(folder: Path) -> tuple[Any, Any, Any]:
    """Configuration, tokenizer and float32 model in `folder`; safetensors only, and none of its own code."""
    try:
        import torch
        from transformers import AutoConfig, AutoModel, AutoTokenizer
    except ImportError as error:
        raise missing_extra("torch and transformers") from error
    safe = {"trust_remote_code": False, "local_files_only": True}
    with _quiet_loading():
        try:
            config = AutoConfig.from_pretrained(folder, **safe)
            if getattr(config, "is_encoder_decoder", False):
                raise RepresentationError(
                    f"the model in {str(folder)!r} is an encoder-decoder ({config.model_type}); "
                    "TextEmbedder needs an encoder such as BERT, MPNet or E5."
                )
            tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **safe)
        except RepresentationError:
            raise
        except Exception as error:  # transformers raises some ten types here
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ModelNotFoundError(
                f"the encoder in {str(folder)!r} cannot be loaded ({why}); "
                "is the download complete, and does it need code of its own (which is never run)?"
            ) from error
    return config, tokenizer, model


def _device(name: str | None) -> torch.device:
    import torch

    there = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name is None:
        return torch.device(there[0])
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ArgumentError(f"device is {name!r}, must be None or one of {there}.") from None
    if device.type not in there:
        raise ArgumentError(
            f"device is {name!r}, which torch does not find here; must be None or one of {there}."
        )
    return device


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers' own progress bar and load report out of the user's output; restore both settings."""
    from transformers.utils import logging

    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def pack_linears(model: torch.nn.Module) -> int:
    """Let the linear layers of a frozen CPU model run on weights packed once for oneDNN; return how many do.

    torch's own float32 matrix product goes through MKL, which leaves the wide vector units of some processors
    idle; oneDNN uses them, at the same precision. A torch without these operators, or whose result is not
    the same on a probe to 1e-4, leaves the layer as it was.
    """
    import torch

    ops = torch.ops.mkldnn
    needed = ("_linear_pointwise", "_reorder_linear_weight")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(ops, name) for name in needed):
        return 0
    packed = 0
    with torch.inference_mode():
        for layer in model.modules():
            if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32:
                probe = torch.linspace(-1, 1, 8 * layer.in_features).cos_().reshape(8, -1)
                packed += _pack(layer, probe)
    return packed


def _pack(layer: torch.nn.Linear, probe: torch.Tensor) -> bool:
    """Pack one layer, in place, if the packed product of `probe` (m, d_in) agrees with its own."""
    import torch

    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), CPU_TOKENS)
        forward = partial(_packed_linear, weight=weight, bias=layer.bias)
        same = torch.allclose(forward(probe), layer(probe), rtol=1e-4, atol=1e-4)
    except (RuntimeError, NotImplementedError):  # an operator that this build of torch has in name only
        return False
    if same:
        layer.forward = forward  # type: ignore[method-assign]
    return same


def _packed_linear(x: torch.Tensor, *, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``x Wᵀ + b`` with W in oneDNN's own layout."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
