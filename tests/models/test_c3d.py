"""C3D: parameters by number of classes, sizes of Figure 3, fields, and the padded last pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.analysis.macs import model_cost
from vidjax.analysis.params import abstract_variables, count_params
from vidjax.analysis.receptive_field import receptive_fields
from vidjax.errors import UserError

CLIP = (16, 112, 112, 3)


@pytest.mark.parametrize("classes, count", [(400, 79_634_576), (487, 79_991_015), (101, 78_409_573)])
def test_parameter_count(classes, count):
    model = vidjax.create_model("c3d", classes)
    assert count_params(abstract_variables(model, CLIP)["params"]) == count


def test_macs_of_each_stage():
    model = vidjax.create_model("c3d")
    by = {k: n / 1e9 for k, n in model_cost(model, CLIP).by_module().items()}
    convs = {"stem_conv": 1.04, "stage2_conv0": 11.10, "stage3_conv0": 5.55, "stage3_conv1": 11.10}
    convs |= {"stage4_conv0": 2.77, "stage4_conv1": 5.55, "stage5_conv0": 0.69, "stage5_conv1": 0.69}
    assert {k for k, n in by.items() if n} == convs.keys() | {"fc6", "fc7", "head"}
    for name, gmacs in convs.items():
        assert by[name] == pytest.approx(gmacs, abs=0.006), name
    assert sum(by[k] for k in convs) == pytest.approx(38.497, abs=1e-3)
    assert by["fc6"] + by["fc7"] + by["head"] == pytest.approx(0.052, abs=1e-3)


def outputs(shape, **options):
    model = vidjax.create_model("c3d", **options)
    return jax.eval_shape(model.apply, abstract_variables(model, shape), jnp.zeros((2, *shape)))


def test_feature_sizes_match_figure_3():
    for options in ({}, {"last_pool": "ceil"}):
        logits, ends = outputs(CLIP, **options)
        sizes = [ends[f"stage{i}"].shape[1:] for i in range(1, 6)]
        want = [(16, 112, 64), (16, 56, 128), (8, 28, 256), (4, 14, 512), (2, 7, 512)]
        assert sizes == [(t, s, s, c) for t, s, c in want]
        assert ends["fc6"].shape == ends["fc7"].shape == (2, 4096) and logits.shape == (2, 400)
    features, ends = outputs(CLIP, num_classes=0)
    assert features.shape == ends["fc6"].shape


def test_other_clip_sizes_run():
    for shape in ((32, 128, 171, 3), (8, 112, 112, 3), (16, 64, 64, 3)):
        assert outputs(shape)[0].shape == (2, 400)


def test_receptive_fields_match_closed_form():
    """Time: windows of three, doubled steps from the second pooling on."""
    fields = receptive_fields(vidjax.create_model("c3d"), CLIP)
    got = [fields[f"stage{i}"].unclipped[:2] for i in range(1, 6)]
    assert got == [(3, 3), (5, 8), (14, 26), (32, 62), (68, 134)]


def test_last_pooling_pads_both_sides_or_the_end():
    """With padding the first row is pooled alone, with `ceil` the last one."""
    seen = {}
    for last_pool in ("padded", "ceil"):
        model = vidjax.create_model(
            "c3d", 3, convs=(1,), widths=(1,), hidden=16, map_size=(1, 4, 4), last_pool=last_pool, dropout=0.0
        )
        # One convolution that copies; the map is then the clip, and fc6 the pooled map.
        kernel = jnp.zeros((3, 3, 3, 1, 1)).at[1, 1, 1].set(1.0)
        video = jnp.arange(1.0, 50.0).reshape(1, 1, 7, 7, 1)
        params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), video)["params"])
        params["stem_conv"]["kernel"], params["fc6"]["kernel"] = kernel, jnp.eye(16)
        seen[last_pool] = np.asarray(model.apply({"params": params}, video)[1]["fc6"]).reshape(4, 4)
    rows = {"padded": [0, 2, 4, 6], "ceil": [1, 3, 5, 6]}
    for last_pool, last in rows.items():
        np.testing.assert_array_equal(seen[last_pool], [[1 + 7 * r + c for c in last] for r in last])
    with pytest.raises(UserError, match="did you mean padded"):
        outputs(CLIP, last_pool="pad")
