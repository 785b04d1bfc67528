"""Checkpoints of nested state, as one unit: safetensors for the arrays, JSON for the rest, never pickle.

The arrays go to a file named after its own SHA-256; the JSON is written last and names that file. Whatever moment a
process dies at, the JSON on disk and the arrays it names belong together.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mindworks.errors import InputError
from mindworks.lab.files import read_sealed, remove_partial, write_atomic, write_sealed

_INDEX = "_state.json"
_INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_NATIVE = frozenset(["bool", *_INTEGERS, "float16", "float32", "float64", "complex64"])


def save(folder: Path, state: Any, about: dict[str, Any] | None = None) -> None:
    """Write `state` to `folder`, replacing the checkpoint before it in one step; `about` is kept beside it.

    State: dicts, lists and tuples of torch tensors, numpy arrays and scalars, ints of any size, floats, strings,
    bools and None. Tensors are stored from, and come back on, the CPU. Raises TypeError that names any other value.
    """
    skeleton, blob = pack(state)
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    index = {"state": skeleton, "about": about or {}, "arrays": None, "sha256": None}
    if blob:
        digest = hashlib.sha256(blob).hexdigest()
        index |= {"arrays": f"_state-{digest[:16]}.safetensors", "sha256": digest}
        write_atomic(folder / str(index["arrays"]), blob)
    write_sealed(folder / _INDEX, index)
    for path in folder.glob("_state-*.safetensors"):
        if path.name != index["arrays"]:
            path.unlink(missing_ok=True)


def load(folder: Path) -> Any:
    """The state saved last in `folder`, or None; raises InputError that names the damaged file."""
    index = _read_index(folder)
    if index is None:
        return None
    blob = b""
    if index["arrays"] is not None:
        path = folder / index["arrays"]
        if not path.exists():
            raise InputError(f"damaged checkpoint {path}: the file is missing")
        blob = path.read_bytes()
        if hashlib.sha256(blob).hexdigest() != index["sha256"]:
            raise InputError(f"damaged checkpoint {path}: its content does not match its SHA-256")
    return unpack(index["state"], blob)


def pack(state: Any) -> tuple[Any, bytes]:
    """`state` as plain data and the bytes of its arrays, b"" where it has none; raises TypeError as `save` does."""
    arrays: dict[str, Any] = {}
    skeleton = _encode(state, arrays, "state")
    if not arrays:
        return skeleton, b""
    from safetensors.numpy import save as serialize

    return skeleton, serialize(arrays)


def unpack(skeleton: Any, blob: bytes) -> Any:
    """The state that `pack` took apart."""
    if not blob:
        return _decode(skeleton, {})
    from safetensors.numpy import load as deserialize

    return _decode(skeleton, deserialize(blob))


def about(folder: Path) -> dict[str, Any] | None:
    """What was kept beside the state saved last in `folder`, or None where nothing was saved."""
    index = _read_index(folder)
    return None if index is None else index["about"]


def _read_index(folder: Path) -> Any:
    path = folder / _INDEX
    return read_sealed(path) if path.exists() else None


def _encode(value: Any, arrays: dict[str, Any], where: str) -> Any:
    """The JSON skeleton of `value`; its arrays are added to `arrays` under the keys the skeleton names."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        if all(type(key) is str and key != "$" for key in value):
            return {key: _encode(item, arrays, f"{where}[{key!r}]") for key, item in value.items()}
        pairs = [
            [_encode(key, arrays, where), _encode(item, arrays, f"{where}[{key!r}]")] for key, item in value.items()
        ]
        return {"$": "dict", "pairs": pairs}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$": "tuple", "items": items}
    kind = type(value).__module__.partition(".")[0]
    if kind == "torch" and hasattr(value, "detach"):
        return _encode_tensor(value, arrays)
    if kind == "numpy" and hasattr(value, "dtype"):
        return _encode_array(value, arrays, where)
    raise TypeError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold")


def _encode_tensor(value: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    import torch

    key = f"a{len(arrays)}"
    dtype = str(value.dtype).removeprefix("torch.")
    tensor = value.detach().cpu().contiguous()
    if dtype not in _NATIVE:
        tensor = tensor.reshape(-1).view(torch.uint8)
    arrays[key] = tensor.numpy()
    return {"$": "tensor", "key": key, "dtype": dtype, "shape": list(value.shape)}


def _encode_array(value: Any, arrays: dict[str, Any], where: str) -> dict[str, Any]:
    import numpy as np

    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.fields:
        raise TypeError(f"{where} is an array of dtype {array.dtype}, which a checkpoint cannot hold")
    key = f"a{len(arrays)}"
    native = array.dtype.name in _NATIVE and array.dtype.isnative
    flat = np.frombuffer(array.tobytes(), dtype=np.uint8)
    arrays[key] = array.copy(order="C") if native else flat
    kind = "scalar" if isinstance(value, np.generic) else "array"
    return {"$": kind, "key": key, "dtype": array.dtype.str, "shape": list(array.shape)}


def _decode(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {key: _decode(item, arrays) for key, item in value.items()}
    if kind == "tuple":
        return tuple(_decode(item, arrays) for item in value["items"])
    if kind == "dict":
        return {_decode(key, arrays): _decode(item, arrays) for key, item in value["pairs"]}
    return _decode_tensor(value, arrays) if kind == "tensor" else _decode_array(value, arrays)


def _decode_tensor(value: dict[str, Any], arrays: dict[str, Any]) -> Any:
    import torch

    dtype = getattr(torch, value["dtype"])
    tensor = torch.from_numpy(arrays[value["key"]].copy())
    if tensor.numel() == 0:
        return torch.empty(value["shape"], dtype=dtype)
    return (tensor if tensor.dtype == dtype else tensor.view(dtype)).reshape(value["shape"])


def _decode_array(value: dict[str, Any], arrays: dict[str, Any]) -> Any:
    import numpy as np

    dtype = np.dtype(value["dtype"])
    array = np.frombuffer(arrays[value["key"]].tobytes(), dtype=dtype).reshape(value["shape"]).copy()
    return array[()] if value["$"] == "scalar" else array
