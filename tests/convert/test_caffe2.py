"""The rules for Caffe2's names agree with the pairs that PySlowFast documents."""

import pytest

from vidjax.convert.engine import _across
from vidjax.convert.load import ORIGINS

# Caffe2: PyTorch, from the comments and patterns of slowfast/utils/c2_model_loading.py.
PAIRS = {
    "i3d_nln_r50_8x8": {
        "conv1_w": "s1.pathway0_stem.conv.weight",
        "res_conv1_bn_riv": "s1.pathway0_stem.bn.running_var",
        "res4_5_branch2b_w": "s4.pathway0_res5.branch2.b.weight",
        "res4_5_branch2b_bn_s": "s4.pathway0_res5.branch2.b_bn.weight",
        "res2_0_branch1_w": "s2.pathway0_res0.branch1.weight",
        "res2_0_branch1_bn_b": "s2.pathway0_res0.branch1_bn.bias",
        "nonlocal_conv3_1_theta_w": "s3.pathway0_nonlocal1.conv_theta.weight",
        "nonlocal_conv3_1_g_b": "s3.pathway0_nonlocal1.conv_g.bias",
        "nonlocal_conv4_5_bn_s": "s4.pathway0_nonlocal5.bn.weight",
        "pred_w": "head.projection.weight",
        "pred_b": "head.projection.bias",
    },
    "slowfast_r50_8x8": {
        "t_conv1_w": "s1.pathway1_stem.conv.weight",
        "t_res_conv1_bn_rm": "s1.pathway1_stem.bn.running_mean",
        "t_res5_2_branch2c_bn_riv": "s5.pathway1_res2.branch2.c_bn.running_var",
        "t_pool1_subsample_w": "s1_fuse.conv_f2s.weight",
        "t_pool1_subsample_bn_s": "s1_fuse.bn.weight",
        "t_res2_2_branch2c_bn_subsample_w": "s2_fuse.conv_f2s.weight",
        "t_res4_5_branch2c_bn_subsample_bn_rm": "s4_fuse.bn.running_mean",
    },
}


def path(origin, model, name):
    found = [p for r in ORIGINS[origin][model] if hasattr(r, "ours") for p in _across(r.source, name, r.ours)]
    assert len(found) == 1, (name, found)
    return found[0]


@pytest.mark.parametrize(
    "model, caffe2, pytorch", [(m, a, b) for m, pairs in PAIRS.items() for a, b in pairs.items()]
)
def test_names_of_both_formats_are_the_same_parameter(model, caffe2, pytorch):
    assert path("pyslowfast_caffe2", model, caffe2) == path("pyslowfast", model, pytorch)
