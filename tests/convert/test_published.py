"""The published checkpoints: complete, well-formed, and with the views that their publishers state."""

import fnmatch
import re

import pytest

import vidjax
from vidjax.convert import published
from vidjax.convert.formats import _READERS
from vidjax.convert.load import ORIGINS
from vidjax.convert.published import CHECKPOINTS, SSV2, publish
from vidjax.registry import DATASETS

# "clips x crops" as their publishers state them, by dataset and name; the first match counts.
VIEWS = {
    SSV2: {
        "tsm_*": "2x3",
        "videomae_*": "2x3",
        "*": "1x3",
    },
    "Kinetics-400": {
        "tsn_resnet50.tsm.uniform": "1x1",
        "tsm_*.uniform": "1x1",
        "swin3d_*.torchvision*": "12x1",
        "s3d.torchvision": "1x1",
        "r2plus1d_34.*": "10x1",
        "*_18.torchvision": "5x1",
        "i3d_inception_*": "1x1",
        "vtn_*": "1x1",
        "mvit_v2_l_40x3.*": "5x3",
        "mvit_*": "5x1",
        "timesformer_*": "1x3",
        "vivit_*": "4x3",
        "swin3d_*": "4x3",
        "videomae_*": "5x3",
        "*": "10x3",
    },
    "Kinetics-600": {
        "movinet_*": "1x1",
        "i3d_inception_*": "1x1",
        "mvit_*": "5x1",
        "timesformer_*": "1x3",
        "vivit_*": "4x3",
        "swin3d_*": "4x3",
        "videomae_*": "5x3",
    },
    "Kinetics-710": {"videomae_*": "5x3"},
    "UCF101": {"videomae_*": "5x3"},
    "Sports-1M": {"c3d.*": "10x1"},
}


def of_videos():
    pretraining = [n for n in vidjax.list_models() if vidjax.spec(n).task == "pretrain"]
    return [c for c in CHECKPOINTS.values() if c.dataset != "ImageNet" and c.model not in pretraining]


def test_every_origin_and_every_model_with_weights_has_a_checkpoint():
    assert {c.origin for c in CHECKPOINTS.values()} == ORIGINS.keys()
    listed = {c.model for c in CHECKPOINTS.values()}
    with_weights = [s for s in map(vidjax.spec, vidjax.list_models()) if s.weights]
    assert len(with_weights) > 50
    assert [s.name for s in with_weights if not {s.name, s.preset.get("trunk")} & listed] == []


def test_every_checkpoint_is_complete():
    for name, c in CHECKPOINTS.items():
        assert name == c.name and c.model in ORIGINS[c.origin] and re.fullmatch(r"[\w.]+", name), name
        assert c.url.startswith(("https://", "http://")) and c.licence, name
        assert any(c.file.endswith(s) for s in (*_READERS, ".index")), c.file
        assert re.fullmatch(r"([0-9a-f]{8,64})?", c.sha256), name
        assert c.dataset in DATASETS or vidjax.spec(c.model).task == "pretrain", name
        assert (c.top1 is None) == (not c.source), name
        assert c.top1 is None or 0 < c.top1 < (c.top5 or 100) <= 100, name
    assert CHECKPOINTS["r3d_18.torchvision"].sha256 == "b3b3357e"
    assert CHECKPOINTS["r3d_18.torchvision"].file == "r3d_18-b3b3357e.pth"
    assert CHECKPOINTS["timesformer_b_8x32.timesformer"].file == "TimeSformer_divST_8x32_224_K400.pyth"


@pytest.mark.parametrize("c", of_videos(), ids=lambda c: c.name)
def test_the_protocol_has_the_published_views(c):
    s = vidjax.spec(c.model)
    want = next(v for pattern, v in VIEWS[c.dataset].items() if fnmatch.fnmatch(c.name, pattern))
    assert c.views(s) == want
    for r in s.results:
        if (r.dataset, r.top1) == (c.dataset, c.top1) and r.views != "whole video":
            assert r.views == want
    assert c.preprocessing.options.keys() <= vidjax.registry.fields(s.module)


def test_protocol_replaces_the_settings_of_the_origin():
    dense, uniform = (CHECKPOINTS[f"tsm_resnet50_8f.tsm{v}"].preprocessing for v in ("", ".uniform"))
    assert (dense.sampling, dense.clips, dense.size) == ("window", 10, 256)
    assert (uniform.sampling, uniform.clips, uniform.size) == ("uniform", 1, None)
    assert CHECKPOINTS["videomae_b.videomae.ssv2"].preprocessing.sampling == "uniform"


def test_publish_rejects_a_name_that_is_taken_and_an_undeclared_model(monkeypatch):
    monkeypatch.setattr(published, "CHECKPOINTS", {})
    publish("torchvision", "r3d_18", "https://a/b-0123abcd.pth?x=1", "Kinetics-400", 63.2, licence="MIT")
    (c,) = published.CHECKPOINTS.values()
    assert (c.name, c.top1, c.top5) == ("r3d_18.torchvision", 63.2, None)
    assert (c.file, c.sha256) == ("b-0123abcd.pth", "0123abcd")
    with pytest.raises(ValueError, match=r"published twice: r3d_18\.torchvision"):
        publish("torchvision", "r3d_18", "https://a/b.pth", "Kinetics-400", licence="MIT")
    with pytest.raises(ValueError, match="r3d_18 of timm is not declared"):
        publish("timm", "r3d_18", "https://a/b.pth", "Kinetics-400", licence="MIT")
