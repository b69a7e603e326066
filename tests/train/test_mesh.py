"""Meshes over the devices of TPU slices, which are not here."""

import dataclasses
import itertools

import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.sharding import create_mesh


@dataclasses.dataclass(frozen=True)
class Chip:
    id: int
    coords: tuple[int, int, int]
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v5"
    core_on_chip: int = 0
    process_index: int = 0


def torus(*sizes, slices=1):
    places = itertools.product(range(slices), *map(range, sizes))
    return [Chip(i, tuple(coords), index) for i, (index, *coords) in enumerate(places)]


def test_axis_may_be_a_part_of_a_dimension_of_the_torus():
    mesh = create_mesh(data=-1, fsdp=8, devices=torus(4, 4, 4))
    assert dict(mesh.shape) == {"data": 8, "fsdp": 8, "tensor": 1, "context": 1}
    assert {d.id for d in mesh.devices.flat} == set(range(64))


def test_axis_of_a_dimension_has_neighbors():
    mesh = create_mesh(data=-1, fsdp=4, devices=torus(4, 4, 4))
    for row in mesh.devices.reshape(16, 4):
        places = np.array([d.coords for d in row])
        assert sorted(len(set(column)) for column in places.T) == [1, 1, 4]


def test_slices_divide_the_axis_of_samples():
    mesh = create_mesh(data=-1, fsdp=16, devices=torus(4, 4, 1, slices=2))
    assert [{d.slice_index for d in row.flat} for row in mesh.devices] == [{0}, {1}]
    with pytest.raises(UserError, match="data=1 does not divide over 2 slices"):
        create_mesh(data=1, fsdp=32, devices=torus(4, 4, 1, slices=2))
