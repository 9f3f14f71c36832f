"""torch checkpoints (.pt, .pth) as numpy arrays, through the restricted unpickler: no code of the file is run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from affuse.core.errors import BadFeatures, MissingFile
from affuse.core.pickles import ArrayUnpickler, refuse

_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


MAGIC = 0x1950A86A20F9469CFC6C  # the first object of the format before torch 1.6


def load(path: Path | str) -> Any:
    """The content of a checkpoint that torch.save wrote: containers whose tensors are arrays (bfloat16 as float32).

    Raises MissingFile, or BadFeatures for a damaged file, another format, or any object that is no tensor or plain
    container.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no such file: {path}", "give the path of a .pt or .pth file")
    try:
        return _from_zip(path) if zipfile.is_zipfile(path) else _from_stream(path)
    except BadFeatures as error:
        raise BadFeatures(f"{path}: {error.message}", error.remedy) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise BadFeatures(
            f"{path} is no readable torch checkpoint ({type(error).__name__}: {error})",
            "save it again with a current torch.save, best as .safetensors",
        ) from error


def load_state(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, also from the `state_dict` of a larger checkpoint; see `load`."""
    found = load(path)
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    tensors = {k: v for k, v in (state or {}).items() if isinstance(k, str) and isinstance(v, np.ndarray)}
    if not tensors:
        raise BadFeatures(f"{path} holds no named tensors", "give the file of a state dict")
    return tensors


def _from_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as pack:
        (root,) = {name.rpartition("/")[0] for name in pack.namelist() if name.rpartition("/")[2] == "data.pkl"}
        with pack.open(f"{root}/data.pkl") as file:
            return _TensorUnpickler(file, lambda key, code, _: _array(pack.read(f"{root}/data/{key}"), code)).load()


def _from_stream(path: Path) -> Any:
    """The format before torch 1.6: pickles one after the other, then the numbers of every storage."""
    room = path.stat().st_size

    def promise(_: str, code: str, numel: int) -> np.ndarray:
        if code == "bf16" or type(numel) is not int or not 0 <= numel * np.dtype(code).itemsize <= room:
            refuse(f"a storage of {numel!r} numbers", "it is larger than the file, or bfloat16")
        return np.zeros(numel, code)

    with path.open("rb") as file:
        if ArrayUnpickler(file).load() != MAGIC:
            raise BadFeatures("it is no torch checkpoint", "give a file that torch.save wrote")
        for _ in ("protocol", "system"):
            ArrayUnpickler(file).load()
        tensors = _TensorUnpickler(file, promise)
        found = tensors.load()
        for key in ArrayUnpickler(file).load():
            storage = tensors.storages[key]
            if int.from_bytes(file.read(8), "little") != len(storage):
                raise BadFeatures(f"storage {key} has another length than its tensors say", "the file is damaged")
            storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    return found


def _array(data: bytes, code: str) -> np.ndarray:
    if code == "bf16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, code)


class _TensorUnpickler(ArrayUnpickler):
    """Also reads tensors: views of the storages that `storage(key, element type, count)` returns."""

    def __init__(self, file: IO[bytes], storage: Callable[[str, str, int], np.ndarray]) -> None:
        super().__init__(file)
        self.storage = storage
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, numel, *rest = pid
        if kind != "storage" or storage not in _STORAGES or any(part is not None for part in rest):
            refuse(f"{kind} of {storage}"[:200], "only plain tensor storages are read")
        if key not in self.storages:
            self.storages[key] = self.storage(key, _STORAGES[storage], numel)
        return self.storages[key]


def _tensor(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> np.ndarray:
    """A view of the storage; its bounds are checked."""
    numbers = (offset, *size, *stride)
    forged = len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers)
    if not isinstance(storage, np.ndarray) or forged:
        refuse(f"a tensor of size {size!r}"[:200], "its shape is forged")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else offset - 1
    if last >= len(storage):
        raise BadFeatures(f"a tensor of size {size} lies outside its storage", "the file is cut off or forged")
    step = storage.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], size, tuple(s * step for s in stride), writeable=False)
