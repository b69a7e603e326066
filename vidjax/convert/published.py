"""Published checkpoints that vidjax reads: where they are, their licenses and their published accuracies.

The modules with the conversion rules list theirs by `publish`. `experiments/imported` evaluates them.
"""

import dataclasses
import pathlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from vidjax.convert.preprocessing import DECLARED, SSV2_CLASSES, Preprocessing
from vidjax.registry import ModelSpec

SSV2 = "Something-Something v2"
_HASHED = re.compile(r"-([0-9a-f]{8})\.\w+$")  # a convention of the PyTorch hub


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published weight file.

    Attributes:
      origin, model: its naming scheme, and the model that it is read as.
      variant: distinguishes the checkpoints of the same origin and model; "" for one of them.
      url: address of the file, or of the page that links it.
      dataset: the dataset that it was trained on last, one of `vidjax.registry.DATASETS`.
      licence: license of the weights.
      top1, top5: published accuracies in percent, None if there are none.
      source: where the accuracies are published; "" if they are not.
      sha256: the first digits of the file's hash; "" if the publisher does not state them.
      file: name to save the file under, with a suffix that `formats.read` knows.
      split: the split of the accuracies; "" for that of the model's config.
      protocol: fields of `Preprocessing` that differ from those that the origin declares for the model.
      note: why it cannot be evaluated; "" if it can.
    """

    origin: str
    model: str
    url: str
    dataset: str
    licence: str
    top1: float | None = None
    top5: float | None = None
    source: str = ""
    variant: str = ""
    sha256: str = ""
    file: str = ""
    split: str = ""
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        """The model, the origin, and the variant if there is one: "swin3d_b.torchvision.in22k"."""
        return ".".join(filter(None, (self.model, self.origin, self.variant)))

    @property
    def preprocessing(self) -> Preprocessing:
        """The settings under which the published accuracy was measured."""
        declared = DECLARED[self.origin, self.model]
        declared = declared.of_classes(SSV2_CLASSES if self.dataset == SSV2 else None)
        return dataclasses.replace(declared, **self.protocol)

    def views(self, s: ModelSpec) -> str:
        """Returns the test views as "clips x crops", such as "10x3", given the spec of the model."""
        val = self.preprocessing.sections(s)["evals"]["val"]
        return f"{val['clips']}x{val['crops']}"


CHECKPOINTS: dict[str, Checkpoint] = {}


def publish(origin: str, model: str, url: str, dataset: str, *accuracy: float | None, **fields: Any) -> None:
    """Adds a checkpoint to `CHECKPOINTS`.

    Args:
      origin, model, url, dataset: see `Checkpoint`; `declare` the origin's preprocessing of the model before.
      *accuracy: top-1, or top-1 and top-5.
      **fields: other fields of `Checkpoint`. `file` defaults to the last part of `url`, and `sha256` to the
        digits at the end of its name, as in "resnet18-f37072fd.pth".

    Raises:
      ValueError: nothing is declared for the model, or the name is taken.
    """
    if (origin, model) not in DECLARED:
        raise ValueError(f"the preprocessing of {model} of {origin} is not declared")
    fields.setdefault("file", pathlib.PurePosixPath(urllib.parse.urlparse(url).path).name)
    if hashed := _HASHED.search(fields["file"]):
        fields.setdefault("sha256", hashed[1])
    fields |= dict(zip(("top1", "top5"), accuracy))
    found = Checkpoint(origin, model, url, dataset, **fields)
    if found.name in CHECKPOINTS:
        raise ValueError(f"checkpoint published twice: {found.name}")
    CHECKPOINTS[found.name] = found


def licence(origin: str, model: str, sha256: str) -> str:
    """Returns the license of a file of an origin ("torchvision or timm" if several match).

    A file whose hash is not that of a published checkpoint may be any of the origin's for the model.

    Returns:
      "BSD-3-Clause (published: resnet18.torchvision)"; "" if no checkpoint of the model is published.
    """
    origins = origin.split(" or ")
    found = [c for c in CHECKPOINTS.values() if c.origin in origins and c.model == model]
    found = [c for c in found if c.sha256 and sha256.startswith(c.sha256)] or found
    names = ", ".join(c.name for c in found)
    return f"{' or '.join(dict.fromkeys(c.licence for c in found))} (published: {names})" if found else ""


def hub(repository: str, file: str = "pytorch_model.bin") -> str:
    """Returns the address of a file on the Hugging Face hub."""
    return f"https://huggingface.co/{repository}/resolve/main/{file}"


def drive(key: str) -> str:
    """Returns the address of a file on Google Drive."""
    return f"https://drive.google.com/file/d/{key}/view"
