"""VGG-16 and MobileNetV2: feature shapes, other input sizes, blocks of Table 2, and the branch hook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.analysis.receptive_field import receptive_fields
from vidjax.convert.engine import convert, export
from vidjax.convert.load import rules_for


def shapes(name, shape, **options):
    model = vidjax.create_model(name, **options)
    image = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return variables, jax.eval_shape(model.apply, variables, image)


def test_vgg_feature_shapes():
    variables, (logits, ends) = shapes("vgg16", (224, 224, 3))
    for i, (size, width) in enumerate(((224, 64), (112, 128), (56, 256), (28, 512), (14, 512)), 1):
        assert ends[f"stage{i}"].shape == (2, size, size, width)
        assert ends[f"pool{i}"].shape == (2, size // 2, size // 2, width)
    assert ends["fc6"].shape == ends["fc7"].shape == ends["pre_logits"].shape == (2, 4096)
    assert logits.shape == (2, 1000)
    kernels = [x.shape for k, x in flatten_dict(variables["params"]).items() if k[-1] == "kernel"]
    assert len(kernels) == 16 and sum(k[:2] == (3, 3) for k in kernels) == 13
    other, (logits, ends) = shapes("vgg16", (97, 320, 3))
    assert jax.tree.map(jnp.shape, other) == jax.tree.map(jnp.shape, variables)
    assert ends["pool5"].shape == (2, 3, 10, 512) and logits.shape == (2, 1000)


def test_vgg_receptive_fields_match_closed_form():
    fields = receptive_fields(vidjax.create_model("vgg16"), (224, 224, 3))
    got = [fields[f"{kind}{i}"].unclipped[0] for i in range(1, 6) for kind in ("stage", "pool")]
    assert got == [5, 6, 14, 16, 40, 44, 92, 100, 196, 212]


def test_vgg_fc6_conversion_follows_pytorch_flattening():
    """A source weight at (channel, row, column) multiplies that element of the feature map."""
    rules = [r for r in rules_for("vgg16", "torchvision") if "fc6" in str(r)]
    source = {
        "classifier.0.weight": np.zeros((4096, 25088), np.float32),
        "classifier.0.bias": np.zeros(4096, np.float32),
    }
    source["classifier.0.weight"][5] = np.arange(25088)
    targets = {
        "params/fc6/kernel": jax.ShapeDtypeStruct((25088, 4096), "f4"),
        "params/fc6/bias": jax.ShapeDtypeStruct((4096,), "f4"),
    }
    kernel = convert(source, rules, targets)["params/fc6/kernel"][:, 5].reshape(7, 7, 512)
    for c, h, w in ((0, 0, 1), (3, 2, 6), (511, 6, 0)):
        assert kernel[h, w, c] == c * 49 + h * 7 + w
    back = export(convert(source, rules, targets), rules)
    np.testing.assert_array_equal(back["classifier.0.weight"], source["classifier.0.weight"])


@pytest.mark.parametrize("name", ["vgg16_bn", "mobilenet_v2", "inception_v1_bn"])
def test_partial_batch_norm_updates_only_the_first_layer(name):
    model = vidjax.create_model(name, 3, tiny=True, partial_bn=True)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    step = jax.jit(
        lambda v: model.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)})
    )
    old, new = (flatten_dict(v["batch_stats"], sep="/") for v in (variables, step(variables)[1]))
    assert {k for k in old if (old[k] != new[k]).any()} == {"stem_bn/mean", "stem_bn/var"}


def test_mobilenet_blocks_match_table_2():
    variables, (_, ends) = shapes("mobilenet_v2", (224, 224, 3))
    params = variables["params"]
    blocks = sorted(k for k in params if k.startswith("stage"))
    assert [sum(b.startswith(f"stage{i}_") for b in blocks) for i in range(1, 8)] == [1, 2, 3, 4, 3, 3, 1]
    assert "conv1" not in params["stage1_block0"]  # nothing to expand
    kernels = {k: params["stage4_block2"][k]["kernel"].shape for k in ("conv1", "conv2", "conv3")}
    assert kernels == {"conv1": (1, 1, 64, 384), "conv2": (3, 3, 1, 384), "conv3": (1, 1, 384, 64)}
    sizes = [ends[f"stage{i}"].shape[1:] for i in range(1, 8)]
    assert sizes == [
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 32),
        (14, 14, 64),
        (14, 14, 96),
        (7, 7, 160),
        (7, 7, 320),
    ]


def test_mobilenet_calls_branch_hook_on_residual_blocks_only():
    model, x = vidjax.create_model("mobilenet_v2", 3), jnp.zeros((1, 32, 32, 3))
    asked = []

    def before(name, x):
        asked.append(name)
        return x, 2 * x

    variables = abstract_variables(model, (32, 32, 3))
    jax.eval_shape(lambda v: model.apply(v, x, before_block=before), variables)
    want = [f"stage{i}_block{j}" for i, n in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for j in range(1, n)]
    assert asked == want and len(asked) == 10


def test_mobilenet_branch_hook_changes_only_the_residual_branch():
    from vidjax.models.image.mobilenet import InvertedResidual

    block = InvertedResidual(4, 2, 1, 1, jnp.float32, jnp.float32)
    x, other = (jax.random.normal(jax.random.key(i), (1, 6, 6, 4)) for i in (0, 1))
    variables = block.init(jax.random.key(2), x, False)
    residual = lambda x: block.apply(variables, x, False) - x  # noqa: E731
    np.testing.assert_allclose(
        block.apply(variables, x, False, other), x + residual(other), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(block.apply(variables, x, False, x), block.apply(variables, x, False))
