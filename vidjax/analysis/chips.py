"""Published peak rates of accelerators.

Those of TPUs are from docs.cloud.google.com/tpu/docs (v5e, v5p, v6e, read in November 2026; v4: 2,400 Gbps of
links). Those of GPUs are of NVIDIA's data sheets, from memory.
"""

import dataclasses
from typing import Any

_GIB, _T, _G = 2**30, 10**12, 10**9


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one JAX device of a kind can do, by the vendor's data sheet.

    Attributes:
      name: as in the name of a TPU slice, or the usual name.
      kinds: beginnings of `jax.Device.device_kind`.
      flops: dense bfloat16 (V100, T4: float16) operations per second.
      memory: bytes of HBM.
      bandwidth: bytes per second to and from HBM.
      links: bytes per second over all chip-to-chip links, one way.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: int
    bandwidth: float
    links: float


CHIPS = (
    Chip("v4", ("TPU v4",), 275 * _T, 32 * _GIB, 1228 * _G, 300 * _G),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197 * _T, 16 * _GIB, 819 * _G, 200 * _G),
    Chip("v5p", ("TPU v5",), 459 * _T, 95 * _GIB, 2765 * _G, 600 * _G),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918 * _T, 32 * _GIB, 1640 * _G, 400 * _G),
    Chip("V100", ("Tesla V100",), 125 * _T, 16 * _GIB, 900 * _G, 150 * _G),
    Chip("T4", ("Tesla T4",), 65 * _T, 16 * _GIB, 320 * _G, 16 * _G),
    Chip("L4", ("NVIDIA L4",), 121 * _T, 24 * _GIB, 300 * _G, 32 * _G),
    Chip("A100", ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"), 312 * _T, 80 * _GIB, 2039 * _G, 300 * _G),
    Chip("A100-40GB", ("NVIDIA A100",), 312 * _T, 40 * _GIB, 1555 * _G, 300 * _G),
    Chip("H100", ("NVIDIA H100",), 989 * _T, 80 * _GIB, 3350 * _G, 450 * _G),
    Chip("H200", ("NVIDIA H200",), 989 * _T, 141 * 10**9, 4800 * _G, 450 * _G),
)


def chip_of(device: Any) -> Chip | None:
    """Returns the chip of a JAX device; None if it is a CPU or not known."""
    return next((chip for chip in CHIPS if device.device_kind.startswith(chip.kinds)), None)
