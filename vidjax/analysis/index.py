"""Generates `models/index.json`, from which `vidjax models` lists models without importing them."""

import json
import pathlib

import vidjax.models
from vidjax.analysis.describe import spec_row
from vidjax.registry import list_models, shape_text, spec

PATH = pathlib.Path(vidjax.models.__file__).with_name("index.json")


def index() -> str:
    """Returns the file's text: one row of published facts per registered model."""
    rows = [spec_row(spec(n)) | {"input_text": shape_text(spec(n).input_shape)} for n in list_models()]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


if __name__ == "__main__":
    PATH.write_text(index(), "utf-8")
