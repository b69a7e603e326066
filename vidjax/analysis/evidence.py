"""Generates `evidence.json`: published accuracies with the counted cost of their view protocols, and configs.

Published accuracies are those of the registry, those that the shipped configs expect, and those of published
checkpoints. Tracing every model takes minutes, so the counts are stored and reused; delete the file to count
everything again.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import vidjax.convert.load  # registers the published checkpoints
import vidjax.models  # noqa: F401  registers them
from vidjax.analysis import graph
from vidjax.analysis.macs import function_cost, jaxpr_cost
from vidjax.analysis.params import abstract_variables, count_params
from vidjax.config import load, shipped_names
from vidjax.convert.published import CHECKPOINTS, Checkpoint
from vidjax.registry import InputShape, ModelSpec, create_model, dummy_input, fields, list_models, spec

PATH = pathlib.Path(__file__).with_name("evidence.json")
# Folders of configs on public datasets, and their spelling in `Result.dataset`.
DATASETS = {
    "kinetics400": "Kinetics-400",
    "kinetics600": "Kinetics-600",
    "kinetics710": "Kinetics-710",
    "sports1m": "Sports-1M",
    "ssv2": "Something-Something v2",
    "ucf101": "UCF101",
    "weizmann": "Weizmann",
}
# Arguments of a config that select a model or a view protocol; "" is its default.
ARGUMENTS = {
    "kinetics400/csn": ("", "model=ir_50", "model=ir_152", "model=ip_152"),
    "kinetics400/mvit_v1": ("", "model=mvit_v1_b_32x3"),
    "kinetics400/mvit_v2": ("", "model=mvit_v2_b_32x3", "model=mvit_v2_l_40x3"),
    "kinetics400/r2plus1d_18": ("", "model=r3d_18", "model=mc3_18", "model=r2plus1d_18_paper"),
    "kinetics400/slowfast": (
        "",
        "model=slowfast_r50_8x8",
        "model=slowfast_r101_8x8",
        "model=slowfast_r101_16x8",
        "model=slowfast_r101_16x8_nl",
    ),
    "kinetics400/swin3d": ("", "model=swin3d_s", "model=swin3d_b", "model=swin3d_l"),
    "kinetics400/timesformer": (
        "",
        "variant=hr",
        "variant=l",
        "variant=joint",
        "variant=space",
        "variant=local_global",
        "variant=axial",
    ),
    "kinetics400/tsm_resnet50_8f": ("", "dense", "frames=16", "dense,model=tsm_mobilenet_v2_8f"),
    "kinetics400/vivit": (
        "",
        "model=vivit_b_16x2_fe",
        "model=vivit_b_16x2_fsa",
        "model=vivit_b_16x2_fdp",
        "model=vivit_l_16x2",
        "model=vivit_l_16x2_fe",
    ),
    "kinetics400/x3d": ("model=xs", "model=s", "", "model=l"),
    "kinetics600/movinet": (
        "",
        *(f"model=a{n}_base" for n in range(1, 6)),
        *(f"model=a{n}_stream" for n in range(6)),
    ),
    "sports1m/karpathy": ("", "early_fusion", "late_fusion", "slow_fusion"),
    "ssv2/timesformer": ("", "variant=hr", "variant=l"),
    "ssv2/tsm_resnet50_8f": ("", "frames=16"),
    "ucf101/gru_rcn_vgg16": ("", "model=bi_gru_rcn_vgg16", "model=stacked_gru_rcn_vgg16", "model=rcn_vgg16"),
    "ucf101/tsn_inception": ("", "model=tsn_resnet50"),
    "ucf101/two_stream_spatial": (
        "",
        "model=two_stream_resnet18_spatial",
        "model=two_stream_resnet50_spatial",
    ),
    "ucf101/two_stream_temporal": (
        "",
        "model=two_stream_resnet18_temporal",
        "model=two_stream_resnet50_temporal",
    ),
}
ROUNDED = 0.2  # percent; within it, two sources state the same result
# Frames of a test view of the registered results, where they differ from the registered input: those of
# torchvision's S3D, and of whole videos for I3D (vidjax/convert/origins/inception.py).
FRAMES = {
    "s3d": 128,
    **dict.fromkeys(("i3d_inception_rgb", "i3d_inception_flow", "i3d_inception_two_stream"), 250),
}
# Options of models that change the cost.
COSTLY = ("frames", "size", "window", "stage1_pool")


def is_classifier(s: ModelSpec) -> bool:
    """Returns whether a model classifies clips, unlike image models, probes and pretraining."""
    shape = s.input_shape
    return (
        s.task == "classify"
        and s.streams != ("features",)
        and (isinstance(shape, Mapping) or len(shape) == 4)
    )


def pretraining(s: ModelSpec) -> str | None:
    """Returns the name of the masked autoencoder that pretrains a model, if there is one."""
    name = f"{s.name}_pretrain"
    return name if list_models(name) else None


def stream_options(s: ModelSpec) -> dict[str, Any] | None:
    """Returns the options under which a model runs frame by frame; None if it does not."""
    if not hasattr(s.module, "init_state") or s.preset.get("bidirectional"):
        return None
    return {"online": True} if "online" in fields(s.module) else {}


def shipped_rows() -> list[dict[str, Any]]:
    """Returns a row per shipped config and argument on a public dataset, with its evaluation and model."""
    rows = []
    for name in shipped_names():
        folder = name.split("/")[0]
        for arg in ARGUMENTS.get(name, ("",)) if folder in DATASETS else ():
            config = load(f"{name}:{arg}" if arg else name)
            if config.model.tiny:
                continue
            val = config.evals.get("val")
            rows.append(
                {
                    "config": f"{name}:{arg}" if arg else name,
                    "model": config.model.name,
                    "dataset": DATASETS[folder],
                    "top1": config.expected.top1,
                    "source": config.expected.source,
                    "views": f"{val.clips}x{val.crops}" if val else "",
                    "frames": (val and val.frames) or config.data.frames,
                    "size": (val and val.size) or config.data.size,
                    "options": {k: v for k, v in config.model.options.items() if k in COSTLY},
                }
            )
    return rows


def figures(s: ModelSpec, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the published accuracies of a model, each with the shape of a view and the options for it.

    A test crop can be larger than the registered input, as in fully convolutional testing.

    Args:
      s: the model.
      rows: the rows of `shipped_rows` that name it.
    """
    found = []
    rest = [row for row in rows if row["top1"] is not None]
    for result in s.results:
        gap = lambda row, top1=result.top1: abs(row["top1"] - top1)  # noqa: E731
        same = [row for row in rest if row["dataset"] == result.dataset and gap(row) <= ROUNDED]
        row = min(same, key=gap, default=None)
        frames, shape, options = FRAMES.get(s.name), s.input_shape, {}
        if isinstance(shape, Mapping):
            shape = {k: (frames or v[0], *v[1:]) for k, v in shape.items()}
        else:
            shape = (frames or shape[0], *shape[1:])
            if row and row["views"] == result.views:
                shape, options = (shape[0], row["size"], row["size"], shape[-1]), row["options"]
        rest = [row for row in rest if row not in same]
        found.append({**vars(result), "config": row and row["config"], "shape": shape, "options": options})
    for row in rest:
        shape = (row["frames"], row["size"], row["size"], s.input_shape[-1])
        keys = ("dataset", "top1", "views", "source", "config", "options")
        found.append({"top5": None, **{key: row[key] for key in keys}, "shape": shape})
    for c in checkpoints(s):
        gap = lambda f, top1=c.top1: abs(f["top1"] - top1)  # noqa: E731
        same = [f for f in found if f["dataset"] == c.dataset and c.top1 is not None and gap(f) <= ROUNDED]
        if same:
            min(same, key=gap).setdefault("checkpoint", c.name)
        elif c.top1 is not None and not c.note:
            found.append(checkpoint_figure(s, c))
    return [{"checkpoint": None, **f} for f in found]


def checkpoints(s: ModelSpec) -> list[Checkpoint]:
    """Returns the published checkpoints of a model."""
    return [c for c in CHECKPOINTS.values() if c.model == s.name]


def checkpoint_figure(s: ModelSpec, c: Checkpoint) -> dict[str, Any]:
    """Returns the published accuracy of a checkpoint, as `figures`."""
    sections = c.preprocessing.sections(s)
    data, val = sections["data"], sections["evals"]["val"]
    size = val.get("size") or data["size"]
    return {
        "dataset": c.dataset,
        "top1": c.top1,
        "top5": c.top5,
        "views": c.views(s),
        "source": f"{c.source}, {c.name}",
        "config": None,
        "options": {k: v for k, v in sections["model"]["options"].items() if k in COSTLY},
        "shape": (data["frames"], size, size, s.input_shape[-1]),
        "checkpoint": c.name,
    }


def view_gmacs(name: str, shape: InputShape, options: Mapping[str, Any]) -> float:
    """Counts the GMACs of one view of a shape, of the model with these options."""
    return jaxpr_cost(graph.trace(create_model(name, **options), shape).jaxpr).macs / 1e9


def step_gmacs(name: str, options: dict[str, Any]) -> float:
    """Counts the GMACs of one frame in frame-by-frame inference."""
    shape = spec(name).input_shape
    model = create_model(name, **options)
    variables = abstract_variables(model, shape)
    frame = dummy_input(shape[1:])
    state = model.init_state(1, shape[1:])
    return (
        function_cost(lambda v, s, x: model.apply(v, s, x, method="step"), variables, state, frame).macs / 1e9
    )


def entry(s: ModelSpec, rows: list[dict[str, Any]], stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what `evidence.json` holds of a model.

    Args:
      s: the model.
      rows: the rows of `shipped_rows`.
      stored: what the file holds of the model now; its counts are not repeated.
    """
    mine = [row for row in rows if row["model"] == s.name]
    found, options = figures(s, mine), stream_options(s)
    known = {}
    if stored:
        known = {_key(f["shape"], f["options"]): f["gmacs"] for f in stored["figures"]}
        known[_key(s.input_shape, {})] = stored["gmacs"]

    def gmacs(shape: InputShape, options: Mapping[str, Any]) -> float:
        if (key := _key(shape, options)) not in known:
            known[key] = view_gmacs(s.name, shape, options)
        return known[key]

    if stored:
        params, step = stored["params"], stored["step_gmacs"]
    else:
        params = count_params(abstract_variables(create_model(s.name), s.input_shape)["params"])
        step = None if options is None else step_gmacs(s.name, options)
    return {
        "figures": [{**f, "gmacs": gmacs(f["shape"], f["options"])} for f in found],
        "configs": [row["config"] for row in mine],
        "checkpoints": {c.name: {"url": c.url, "licence": c.licence} for c in checkpoints(s)},
        "pretraining_configs": [row["config"] for row in rows if row["model"] == pretraining(s)],
        "stream_options": options,
        "params": params,
        "gmacs": gmacs(s.input_shape, {}),
        "step_gmacs": step,
    }


def _key(shape: InputShape, options: Mapping[str, Any]) -> str:
    return json.dumps([shape, options])


def evidence() -> str:
    """Returns the file's text: one entry per registered model that classifies clips.

    Counts of models already in the file are kept.
    """
    stored = json.loads(PATH.read_text("utf-8")) if PATH.exists() else {}
    rows = shipped_rows()
    specs = [s for s in map(spec, list_models()) if is_classifier(s)]
    lines = (f"{json.dumps(s.name)}: {json.dumps(entry(s, rows, stored.get(s.name)))}" for s in specs)
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(evidence(), "utf-8")
