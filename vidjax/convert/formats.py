"""Readers of weight files in several formats, which return a flat mapping of names to numpy arrays.

Files are not trusted: reading one cannot execute code. A truncated or unknown file raises a `UserError`.
"""

import functools
import hashlib
import os
import pathlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from vidjax import files
from vidjax.checkpoint_io import load_variables
from vidjax.errors import UserError

Path = pathlib.Path
# Keys under which training scripts store the weights, next to the optimizer state etc.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "blobs")


def read(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a weight file or a vidjax checkpoint folder.

    Supported are .safetensors; .pth, .pt, .pyth, .bin and .ckpt of PyTorch; .msgpack of Flax; .npz; .pkl of
    Caffe2 (PySlowFast); and pairs of .index and .data files of TensorFlow, by their common prefix or the
    .index.

    Returns:
      The arrays by name ("a/b/c" for nested mappings), and the metadata of a vidjax checkpoint, else {}.

    Raises:
      UserError: the file does not exist, has an unknown format, is truncated or contains more than arrays, or
        an optional dependency is not installed.
    """
    folder = files.absolute(path)
    if folder.is_dir():
        variables, meta = load_variables(folder)
        return flatten_dict(variables, sep="/"), meta
    path = pathlib.Path(path)
    if path.suffix == ".index" or path.with_name(path.name + ".index").is_file():
        return _tensorflow(path), {}
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: no such file or folder")
    if path.suffix not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise UserError(f"{path}: unknown weight format '{path.suffix}'; supported are {known}")
    return state_dict(_READERS[path.suffix](path), str(path)), {}


def state_dict(tree: Any, what: str) -> dict[str, np.ndarray]:
    """Extracts the weights from the contents of a checkpoint, without PyTorch's DataParallel prefix.

    Args:
      tree: nested mappings of numpy arrays or PyTorch tensors.
      what: description of the source for error messages.

    Raises:
      UserError: `tree` is empty or contains anything but arrays.
    """
    while isinstance(tree, Mapping) and (key := next((w for w in _WRAPPERS if w in tree), None)):
        if not isinstance(tree[key], Mapping):
            break
        tree = tree[key]
    if isinstance(tree, Mapping) and isinstance(tree.get("optimizer"), Mapping):  # scenic's TrainState
        tree = tree["optimizer"].get("target", tree)
    elif isinstance(tree, Mapping) and {"params", "opt_state"} <= tree.keys():  # scenic's later TrainState
        tree = tree["params"]
    if not isinstance(tree, Mapping) or not tree:
        raise UserError(f"{what} contains no mapping of names to arrays")
    flat = dict(_leaves(tree))
    arrays = {name: _array(x) for name, x in flat.items()}
    if odd := [f"{name} ({type(flat[name]).__name__})" for name, x in arrays.items() if x is None]:
        raise UserError(f"{what} contains more than arrays: {', '.join(odd[:5])}")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): x for name, x in arrays.items()}
    return arrays


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    """Writes a .safetensors file with the metadata `about`.

    Raises:
      UserError: the suffix is not .safetensors, or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    if pathlib.Path(path).suffix != ".safetensors":
        raise UserError(f"{path}: weights are exported as .safetensors")
    try:
        # The format stores raw memory, so a transposed view would be written untransposed.
        copied = {k: np.ascontiguousarray(x).reshape(np.shape(x)) for k, x in arrays.items()}
        files.write(path, save(copied, dict(about)))
    except (OSError, SafetensorError) as e:
        raise UserError(f"cannot write {path}: {_reason(e)}") from None


def sha256(path: str | pathlib.Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal; "" for a folder."""
    if not pathlib.Path(path).is_file():
        return ""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _leaves(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _array(x: Any) -> np.ndarray | None:
    if hasattr(x, "detach"):  # a PyTorch tensor, recognized without importing PyTorch
        x = x.detach().cpu()
        return (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    if isinstance(x, np.ndarray | np.generic) or hasattr(x, "__array__"):
        x = np.asarray(x)
        return None if x.dtype == object else x
    return None


def _reason(e: BaseException) -> str:
    return re.split(r"\. |\n", str(e).strip() or type(e).__name__)[0]


def _refusing(*errors: type[Exception]) -> Callable:
    """Returns a decorator for readers whose `errors` mean that the file is truncated or of another format."""

    def wrap(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
        @functools.wraps(reader)
        def read_file(path: Path) -> Any:
            try:
                return reader(path)
            except errors as e:
                raise UserError(
                    f"cannot read {path}: it is truncated or not a {path.suffix} weight file ({_reason(e)})"
                ) from None

        return read_file

    return wrap


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    return _refusing(SafetensorError, OSError)(load_file)(path)


@_refusing(RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, LookupError, TypeError)
def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(f"reading {path.name} needs PyTorch: pip install 'vidjax[convert]'") from None
    try:
        # weights_only builds only tensors and plain containers, and raises for any other pickle.
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        # Replace PyTorch's message, which recommends executing the file if it is trusted.
        name = re.search(r"GLOBAL (\S+)", str(e))
        why = f"it contains more than arrays: {name[1]}; save only its state dict" if name else "not a pickle"
        raise pickle.UnpicklingError(why) from None


@_refusing(ValueError, EOFError, OSError, KeyError, TypeError)
def _msgpack(path: Path) -> Any:
    return msgpack_restore(path.read_bytes())


@_refusing(ValueError, EOFError, OSError, LookupError, TypeError, zipfile.BadZipFile, zlib.error)
def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that builds only numpy arrays and plain containers, and raises for any other global."""

    ALLOWED: ClassVar = {
        "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "_codecs.encode": str.encode,  # how Python 3 pickles bytes in protocol 2
    }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it contains more than arrays: {full}")
        return self.ALLOWED[full]


@_refusing(pickle.UnpicklingError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
def _caffe2(path: Path) -> Any:
    with open(path, "rb") as file:
        # Written by Python 2, whose byte strings are preserved by latin1.
        return _ArraysOnly(file, encoding="latin1").load()


def _tensorflow(path: Path) -> dict[str, np.ndarray]:
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    try:
        import tensorflow as tf
    except ImportError:
        raise UserError(f"reading {prefix.name} needs TensorFlow: pip install 'vidjax[tf]'") from None
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = [n for n, dtype in reader.get_variable_to_dtype_map().items() if dtype != tf.string]
        return {name: reader.get_tensor(name) for name in sorted(names)}
    except (tf.errors.OpError, ValueError, OSError) as e:
        raise UserError(f"cannot read {prefix}: it is truncated or not a checkpoint ({_reason(e)})") from None


_READERS = {
    ".safetensors": _safetensors,
    **dict.fromkeys((".pth", ".pt", ".pyth", ".bin", ".ckpt"), _torch),
    ".msgpack": _msgpack,
    ".npz": _npz,
    ".pkl": _caffe2,
}
