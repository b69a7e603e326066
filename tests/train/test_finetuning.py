"""Fine-tuning a pretrained model, and fine-tuning the result on other classes."""

import jax
import numpy as np
import pytest

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.checkpoint_io import check_skip, load_variables
from vidjax.config import load, resolve, shipped_names
from vidjax.data.datasets import load_source
from vidjax.errors import UserError
from vidjax.train.experiment import build, initial_state
from vidjax.train.loop import train

OPTIONS = dict(size=32, frames=8, train=24, val=12, test=12)
# Models and their fine-tuning recipes.
FAMILIES = {
    "videomae_s": "configs/kinetics400/videomae_s_finetune.py",
    "mae_st_b": "configs/kinetics400/mae_st_l_finetune.py",
}


def config(name, size, init=None, data=None, **options):
    pretraining = name.endswith("_pretrain")
    return resolve(
        dict(
            batch=8,
            steps=1,
            data=dict(name="synthetic_motion", options=OPTIONS, frames=4, stride=1.0, size=size)
            | dict(short_side=size, crop="center", flip=False)
            | (data or {}),
            model=dict(name=name, tiny=True, options=options),
            init=init or {},
            task=dict(name="masked_autoencoding" if pretraining else "classification"),
            optimizer=dict(name="adamw", lr=1e-2, layer_decay=None if pretraining else 0.75),
            evals=dict(val=dict(type="metrics", every=0.0)),
            report=False,
        )
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a folder with videos of three classes."""
    folder = tmp_path_factory.mktemp("tuning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(folder / "cache"))
        source = load_source("synthetic_motion", "train", **OPTIONS)
        for i in range(24):
            target = folder / "videos" / ("train", "test")[i % 2] / f"class{i % 3}"
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{i}.mp4").write_bytes(source[i].encoded())
        yield folder


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "mae_st_b" else n for n in FAMILIES]
)
def test_fine_tunes_to_twelve_classes_then_to_three(place, capsys, name):
    size = 32 if name == "mae_st_b" else 16
    skip = tuple(load(FAMILIES[name]).init.skip)
    if name == "mae_st_b":
        pretrained = config("mae_st_b_pretrain", size)
    else:
        pretrained = config("videomae_s_pretrain", size, encoder_norm=True)
    runs = [place / f"{name}_{i}" for i in range(3)]
    train(pretrained, runs[0])
    train(config(name, size, dict(path=str(runs[0]), skip=skip), head_scale=0.001), runs[1])
    err = capsys.readouterr().err
    line = next(
        row for row in err.splitlines() if row.startswith(f"{runs[0]}/checkpoints/") and ": loaded" in row
    )
    behind = "decoder_block, decoder_embed, decoder_norm, decoder_pred, "
    if name == "videomae_s":
        assert "initialized 4 arrays (fc_norm, head)" in line
        assert line.endswith(f"dropped 21 arrays ({behind}mask_token, norm)")
    else:
        assert "initialized 2 arrays (head)" in line and "decoder_pos_embed_class" in line

    folder = dict(name="video_folder", options=dict(path=str(place / "videos")))
    tuned = config(name, size, dict(path=str(runs[1]), skip=("params/head",)), folder)
    state = initial_state(build(tuned))
    line = capsys.readouterr().err
    assert "initialized 2 arrays (head); dropped 2 arrays (head)" in line
    before, _ = load_variables(runs[1])
    assert before["params"]["head"]["kernel"].shape == (16, 12)
    assert state.params["head"]["kernel"].shape == (16, 3)
    for path, x in jax.tree_util.tree_leaves_with_path(state.params):
        key = [k.key for k in path]
        if key[0] != "head":
            expected = before["params"]
            for k in key:
                expected = expected[k]
            np.testing.assert_array_equal(x, expected, err_msg="/".join(key))
    with pytest.raises(UserError, match=r"params/head/kernel: \(16, 12\) in the checkpoint, \(16, 3\)"):
        initial_state(build(config(name, size, dict(path=str(runs[1])), folder)))
    stray = dict(path=str(runs[1]), skip=("params/head", "params/haed"))
    with pytest.raises(
        UserError, match=r"init\.skip: 'params/haed' matches no parameter of the model or"
    ) as e:
        initial_state(build(config(name, size, stray, folder)))
    assert "params/head" in str(e.value) and "\n" not in str(e.value)
    assert train(tuned, runs[2])["val"].logits.shape[-1] == 3


def test_checkpoint_with_another_patch_size_is_rejected(place):
    """Position embeddings adapt to the clip, but patch embeddings do not."""
    train(config("videomae_s_pretrain", 16, encoder_norm=True), place / "patch8")
    other = config("videomae_s", 16, dict(path=str(place / "patch8"), skip=("norm|decoder|token|head",)))
    other.model.options.patch = (2, 4, 4)
    with pytest.raises(UserError, match=r"patch_embed/kernel: \(2, 8, 8, 3, 16\) in the checkpoint") as e:
        initial_state(build(other))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", [n for n in shipped_names() if load(n).init.skip])
def test_patterns_of_shipped_configs_match_a_path(name):
    """`init.skip` names something that the model itself newly initializes."""
    c = load(name)
    model = vidjax.create_model(c.model.name, 10, **c.model.options.to_dict())
    variables = abstract_variables(model, vidjax.spec(c.model.name).input_shape)
    check_skip(variables, variables, c.init.skip, name)


def test_config_matches_the_videomae_recipe():
    """Compares with VideoMAE fine-tuning of ViT-B (Tong et al., arXiv:2203.12602, Table 8)."""
    c = load("configs/kinetics400/videomae_b_finetune.py")
    assert vidjax.spec(c.model.name).module.__name__ == "VideoMAE"
    got = {
        "layer decay": c.optimizer.layer_decay,
        "drop path": c.model.options.drop_path,
        "mixup, cutmix": (c.task.mixup, c.task.cutmix),
        "RandAugment": c.data.auto_augment,
        "random erasing": c.task.random_erasing,
        "repeated augmentation": c.data.repeats,
        "label smoothing": c.task.label_smoothing,
        "head": c.model.options.head_scale,
        "warmup, cosine": (c.schedule.name, c.schedule.warmup_epochs),
        "learning rate": c.optimizer.lr * (c.batch / c.data.repeats) / 256,
        "views": (c.evals.val.clips, c.evals.val.crops),
    }
    assert got == {
        "layer decay": 0.75,
        "drop path": 0.1,
        "mixup, cutmix": (0.8, 1.0),
        "RandAugment": "rand-m7-n4-mstd0.5-inc1",
        "random erasing": 0.25,
        "repeated augmentation": 2,
        "label smoothing": 0.1,
        "head": 0.001,
        "warmup, cosine": ("cosine", 5.0),
        "learning rate": 7.5e-4,
        "views": (5, 3),
    }
