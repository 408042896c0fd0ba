"""Tensors as they are stored: safetensors, large matrices as int8 with scales where asked for; never a pickle.

`weights.py` keeps versions of them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.base_weights import SCALE_SUFFIX
from utils.errors import WeightsCorruptError
from utils.files import replace_file

INT8_MIN_ELEMENTS = 65536
"""Matrices at least this large are stored as int8 with one scale per output channel, where a version asks for it."""

Arrays = dict[str, npt.NDArray[Any]]


def pack_tensors(tensors: Mapping[str, npt.NDArray[Any]], *, int8: bool) -> Arrays:
    """Tensors as they are stored: large matrices as int8 with scales where asked for, the rest unchanged.

    Args:
        tensors: float32 or integer arrays by name.
        int8: round matrices of `INT8_MIN_ELEMENTS` and more to 255 steps per output channel (axis 0).
    """
    out: Arrays = {}
    for name, value in tensors.items():
        if int8 and value.ndim >= 2 and value.size >= INT8_MIN_ELEMENTS:
            flat = np.abs(value.reshape(len(value), -1)).max(1)
            scale = np.maximum(flat / 127, 1e-12).astype(np.float32)
            shaped = scale.reshape(-1, *[1] * (value.ndim - 1))
            out[name] = np.clip(np.rint(value / shaped), -127, 127).astype(np.int8)
            out[name + SCALE_SUFFIX] = scale
        else:
            out[name] = np.asarray(value, order="C")
    return out


def unpack_tensors(stored: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The inverse of `pack_tensors`: int8 matrices become float32 again."""
    out: Arrays = {}
    for name, value in stored.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = stored.get(name + SCALE_SUFFIX)
        if scale is None:
            out[name] = value
        else:
            out[name] = value.astype(np.float32) * scale.reshape(-1, *[1] * (value.ndim - 1))
    return out


def replace_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write arrays as .npz, whole or not at all; see `replace_file`."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    replace_file(path, stream.getvalue())


def read_tensors(path: Path) -> Arrays:
    """The unpacked tensors of a safetensors file.

    Raises:
        WeightsCorruptError: it is not a whole safetensors file, or holds numbers that are infinite or none at all.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = unpack_tensors(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsCorruptError(f"{path.name} cannot be read: {error}.") from error
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise WeightsCorruptError(f"{path.name} holds values of {name} that are no finite numbers.")
    return tensors


def state_arrays(module: Any) -> Arrays:
    """The state of a torch module as arrays, on the CPU."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_into(module: Any, tensors: Mapping[str, npt.NDArray[Any]], *, what: str, strict: bool = True) -> None:
    """Copy tensors into a torch module.

    Args:
        what: named in errors.
        strict: the names must be exactly the module's; otherwise they must be among them.

    Raises:
        WeightsCorruptError: a name or a shape does not fit.
    """
    import torch

    try:
        result = module.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=strict)
    except RuntimeError as error:
        raise WeightsCorruptError(f"The weights of {what} do not fit its network: {error}") from error
    if result.unexpected_keys:
        raise WeightsCorruptError(f"The weights of {what} hold unknown names: {result.unexpected_keys[:3]}")
