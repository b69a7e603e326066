"""The devices of a slice: real ones, or those of a TPU that is not there."""

import math
import os
import re
from typing import Any

import jax

from vidjax.analysis.chips import CHIPS, Chip, chip_of
from vidjax.errors import UserError

LOCAL = re.compile(r"(cpu|gpu):(\d{1,4})")
TPU = re.compile(r"(v\w+):(\d+(?:x\d+){1,2})")


def check(name: str) -> None:
    """Raises `UserError` if a slice has no valid name."""
    tpus = [c.name for c in CHIPS if c.name.startswith("v")]
    match = TPU.fullmatch(name)
    if not LOCAL.fullmatch(name) and not (match and match[1] in tpus):
        raise UserError(
            f"no slice {name!r}: use CHIP:SHAPE, such as v5e:16x16 or v5p:4x4x4, with a chip of "
            f"{', '.join(tpus)}; or cpu:8, or gpu:1 for those of this machine"
        )


def count(name: str) -> int:
    """Returns the number of devices of a slice with a valid name."""
    return math.prod(int(n) for n in re.findall(r"\d+", name.partition(":")[2]))


def devices(name: str) -> tuple[list[Any], Chip | None]:
    """Returns the devices of a slice, and the published rates of each; None for a CPU.

    Raises:
      UserError: the slice does not exist, there are fewer devices here, or libtpu is missing.
    """
    check(name)
    if match := LOCAL.fullmatch(name):
        found = jax.devices(match[1]) if match[1] in (jax.default_backend(), "cpu") else []
        if len(found) < count(name):
            raise UserError(f"{name}: this machine has {len(found)} such devices")
        return found[: count(name)], chip_of(found[0])
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as e:
        text = str(e).partition("\n")[0]
        if "not installed" in text or "Unknown backend" in text:
            raise UserError(f"planning for {name} needs libtpu: pip install 'jax[tpu]' ({text})") from None
        raise UserError(f"libtpu does not know the slice {name}: {text}") from None
    chip = next(c for c in CHIPS if c.name == name.partition(":")[0])
    return list(topology.devices), chip
