"""Probes of synthetic features with known structure, and errors on incompatible files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.cli import main
from vidjax.data.feature_file import FeatureWriter
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.probe import probe, recipe
from vidjax.tasks.results import ClassificationResult

CLASSES = ["left", "right", "still"]


def write(path, rows, labels, split, **meta):
    """Writes a feature file with rows [M, n, ...], n per video."""
    about = dict(model="videomae_s_pretrain", layer="tokens", weights="0123456789abcdef", rows="windows")
    about |= dict(dense=rows.ndim > 3, input={"size": 16}, dataset={"name": "synthetic_motion"})
    about |= dict(dataset_fingerprint="", split=split, class_names=CLASSES, shape=list(rows.shape[2:]))
    with FeatureWriter(path) as writer:
        for i, (x, y) in enumerate(zip(rows, labels)):
            writer.add(f"{split}-{i}", ClassTarget(int(y)), x.astype(np.float32), np.zeros((len(x), 2)), 1.0)
        writer.finish(about | meta)


def pooled(rng, n):
    """Returns features with two rows per video; one of 8 dimensions depends on the class, at scale 0.01."""
    labels = np.arange(n) % 3
    x = rng.normal(size=(n, 2, 8))
    x[..., 3] = 0.01 * (labels[:, None] - 1 + 0.05 * rng.normal(size=(n, 2)))
    return x, labels


def dense(rng, n):
    """Returns 2 x 2 x 2 tokens, of which a marked one at a random position encodes the class."""
    labels = np.arange(n) % 3
    x = 2 * np.eye(16)[1 + rng.integers(3, size=(n, 1, 8))]
    where = rng.integers(8, size=n)
    x[np.arange(n), 0, where] = 2 * np.eye(16)[1 + labels] + 3 * np.eye(16)[0]
    return (x + 0.1 * rng.normal(size=x.shape)).reshape(n, 1, 2, 2, 2, 16), labels


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("probe"), np.random.default_rng(0)
    for split, n in (("train", 96), ("test", 48)):
        write(folder / f"pooled_{split}.npz", *pooled(rng, n), split)
        write(folder / f"dense_{split}.npz", *dense(rng, n), split)
    return folder


def top1(files, kind, name, *overrides):
    path = str(files / f"{name}_{{split}}.npz")
    return probe(path, files / f"{kind}_{name}", kind, overrides=overrides).metrics["video_top1"]


def test_batch_norm_probe_uses_small_features(files):
    longer = ("batch=16", "epochs=30", "optimizer.lr=1")
    bn = top1(files, "linear_bn", "pooled", *longer)
    assert bn > 0.95 and top1(files, "linear", "pooled", *longer) < 0.6


@pytest.mark.slow
def test_attentive_probe_finds_the_informative_token(files):
    longer = ("batch=32", "epochs=40", "optimizer.lr=8e-2")
    attentive = top1(files, "attentive", "dense", *longer)
    assert attentive > 0.95 and top1(files, "linear_bn", "dense", "epochs=60", "optimizer.lr=2") < 0.8


def test_knn_probe_of_cached_features(files, capsys):
    rng = np.random.default_rng(1)
    centres = np.eye(3, 8)
    for split, n in (("train", 30), ("test", 12)):
        labels = rng.integers(3, size=n) if split == "test" else np.arange(n) % 3
        # Single rows are random; the mean of the rows of a video is the center of its class.
        shift = rng.normal(size=(n, 1, 8))
        rows = centres[labels][:, None] + np.concatenate([shift, -shift], axis=1)
        write(files / f"near_{split}.npz", rows, labels, split)
    line = ["probe", str(files / "near_{split}.npz"), "--kind", "knn", "--workdir", str(files / "knn")]
    with pytest.raises(SystemExit) as e:
        main([*line, "--k", "5"])
    assert e.value.code == 0 and "video_top1           1.0000" in capsys.readouterr().out
    result = ClassificationResult.load(files / "knn" / "result.npz")
    assert result.ids[3] == "test-3" and result.class_names == tuple(CLASSES)


def test_linear_probe_trains_only_its_head():
    x = 3 + 2 * jax.random.normal(jax.random.PRNGKey(0), (64, 1, 8))
    model = vidjax.create_model("linear_probe", 3, batch_norm=True)
    variables = jax.jit(model.init)(jax.random.PRNGKey(1), x)
    assert list(variables["params"]) == ["head"]
    (_, seen), moved = model.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(seen["pre_logits"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen["pre_logits"].std(0), 1, rtol=1e-3)
    mean = 0.1 * np.asarray(x[:, 0]).mean(0)
    var = 0.9 + 0.1 * np.asarray(x[:, 0]).var(0)
    _, seen = model.apply({**variables, **moved}, x)
    expected = (np.asarray(x[:, 0]) - mean) / np.sqrt(var + 1e-6)
    np.testing.assert_allclose(seen["pre_logits"], expected, rtol=1e-4, atol=1e-5)


def test_attentive_probe_equals_numpy():
    x = jax.random.normal(jax.random.PRNGKey(0), (2, 5, 8))
    model = vidjax.create_model("attentive_probe", 3, heads=2, mlp_ratio=2)
    variables = jax.jit(model.init)(jax.random.PRNGKey(1), x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64) * 5, variables["params"])
    p["norm1"]["scale"], p["norm2"]["scale"] = np.ones(8), np.ones(8)

    def norm(y):
        return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)

    def dense(name, y, p=p):
        return y @ p[name]["kernel"] + p[name]["bias"]

    expected = []
    for clip in np.asarray(x, np.float64):
        kv, q, heads = dense("kv", norm(clip)), dense("q", p["query"][0, 0]), []
        for h in (slice(0, 4), slice(4, 8)):
            weights = np.exp(kv[:, :8][:, h] @ q[h] / 2)
            heads.append(weights / weights.sum() @ kv[:, 8:][:, h])
        y = p["query"][0, 0] + dense("proj", np.concatenate(heads))
        hidden = dense("fc1", norm(y), p["mlp"])
        gelu = np.asarray(jax.nn.gelu(jnp.asarray(hidden), approximate=False), np.float64)
        expected.append(dense("head", y + dense("fc2", gelu, p["mlp"])))
    got, _ = jax.jit(model.apply)({"params": jax.tree.map(jnp.float32, p)}, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_every_gradient_is_finite_and_nonzero():
    for name in ("linear_probe", "attentive_probe"):
        x = jax.random.normal(jax.random.PRNGKey(0), (3, *vidjax.spec(name).tiny_input_shape))
        model = vidjax.create_model(name, 4, tiny=True)
        variables = jax.jit(model.init)(jax.random.PRNGKey(1), x)
        weights = jnp.arange(12.0).reshape(3, 4)
        grads = jax.jit(jax.grad(lambda v: (model.apply(v, x)[0] * weights).sum()))(variables)  # noqa: B023
        for path, g in jax.tree_util.tree_leaves_with_path(grads):
            bias = "kv" in str(path) and "bias" in str(path)  # the key bias shifts all scores equally
            assert np.isfinite(g).all() and ((np.asarray(g) != 0).all() or bias), path


@pytest.mark.parametrize("kind", ["knn", "linear", "attentive"])
@pytest.mark.parametrize(
    "change, message",
    [
        (dict(class_names=["left", "right", "up"]), "the classes of 'train' and 'test' differ"),
        (dict(weights="fedcba9876543210"), "weights 0123456789abcdef and fedcba9876543210"),
        (dict(layer="pre_logits"), "layer tokens and pre_logits"),
        (dict(split=None), "unlabeled videos"),
        (dict(width=12), "features of width 12"),
        (dict(tokens=1), "has 1 tokens per row"),
    ],
)
def test_incompatible_files_are_reported(files, tmp_path, kind, change, message):
    rows, labels = dense(np.random.default_rng(2), 6)
    write(tmp_path / "train.npz", rows, labels, "train")
    change = dict(change)
    rows = rows[..., : change.pop("width", 16)]
    if change.pop("tokens", None):
        rows = rows[:, :, 0, 0, 0]
    write(tmp_path / "test.npz", rows, labels, **{"split": "test", **change})
    with pytest.raises(UserError, match=message) as e:
        probe(str(tmp_path / "{split}.npz"), tmp_path / "run", kind)
    assert "\n" not in str(e.value)


def test_class_without_training_videos_is_reported(tmp_path):
    rows, labels = pooled(np.random.default_rng(2), 9)
    write(tmp_path / "train.npz", rows[labels < 2], labels[labels < 2], "train")
    write(tmp_path / "test.npz", rows, labels, "test")
    for kind in ("knn", "linear"):
        with pytest.raises(UserError, match=r"'still', a class that .*train.npz has none of"):
            probe(str(tmp_path / "{split}.npz"), tmp_path / "run", kind)


def test_invalid_probes_are_reported(files, tmp_path):
    path = str(files / "pooled_{split}.npz")
    with pytest.raises(UserError, match=r"several tokens .* pooled features: cache them with --dense"):
        probe(path, tmp_path, "attentive")
    with pytest.raises(UserError, match="unknown probe kind 'atentive': did you mean attentive"):
        probe(path, tmp_path, "atentive")
    with pytest.raises(UserError, match="k must be at least 1"):
        probe(path, tmp_path, "knn", k=0)
    with pytest.raises(UserError, match=r"feature file .* does not exist"):
        probe(str(tmp_path / "{split}.npz"), tmp_path, "knn")
    with pytest.raises(UserError, match="16 heads do not divide features of width 8"):
        probe(str(files / "pooled_{split}.npz"), tmp_path, "attentive", overrides=[
            "data.frames=2", "model.options.heads=16"
        ])  # fmt: skip


def test_recipe_reads_the_feature_file(files):
    config = recipe(str(files / "dense_{split}.npz"), "attentive")
    assert (config.data.feature_width, config.data.feature_tokens, config.batch) == (16, 8, 96)
    assert config.model.options.heads == 1 and config.evals.val.clips == 1
    assert recipe(str(files / "pooled_{split}.npz"), "linear").evals.val.clips == 2
