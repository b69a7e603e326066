"""video_folder: lists, class folders, held-out splits, and what is said when something is wrong."""

import os

import pytest

from vidjax.data.datasets import dataset_names, load_source
from vidjax.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not opened here")


def load(root, split="all", **options):
    return load_source("video_folder", split, path=root, **options)


@pytest.fixture
def folder(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("wave", "bend", "run") for i in range(20)))
    return tmp_path


@pytest.fixture
def listed(folder):
    rows = [f"{name}/{i}.mp4,{name},p{i % 4},x" for name in ("wave", "bend", "run") for i in range(20)]
    (folder / "clips.csv").write_text("\n".join(["path,label,group,ignored", *rows]))
    return folder


def test_class_folders(folder):
    touch(folder, "run/deep/er.MKV", "run/notes.txt", "run/.hidden.mp4", ".git/a.mp4")
    source = load(folder)
    assert source.class_names == ("bend", "run", "wave") and not source.directional
    assert len(source) == 61 and [r.id for r in source].count("run/deep/er.MKV") == 1
    assert all(source.class_names[r.label] == r.id.split("/")[0] for r in source)
    assert all(os.path.isfile(r.video) for r in source)
    assert load(folder, directional=True).directional


def test_list_in_utf8_with_times_and_groups(tmp_path):
    touch(tmp_path, "a b.mp4", "é.mp4")
    rows = "path,label,end,start,group\na b.mp4,x,2.5,1,g\na b.mp4,y,,2.5,\né.mp4,x,,,\n"
    (tmp_path / "l.csv").write_text(rows, encoding="utf-8-sig")
    source = load(tmp_path, csv="l.csv")
    assert [(r.id, r.label, r.start, r.end, r.group) for r in source] == [
        ("a b.mp4#1.0-2.5", 0, 1.0, 2.5, "g"),
        ("a b.mp4#2.5-None", 1, 2.5, None, None),
        ("é.mp4", 0, None, None, None),
    ]


def test_groups_are_held_out_whole(listed):
    options = {"csv": "clips.csv", "test_groups": ["p1", "p3"]}
    train, test = load(listed, "train", **options), load(listed, "test", **options)
    assert {r.group for r in test} == {"p1", "p3"} and {r.group for r in train} == {"p0", "p2"}
    assert {r.id for r in train} | {r.id for r in test} == {r.id for r in load(listed)}
    assert train.fingerprint != test.fingerprint


def test_fraction_is_stable_when_videos_come_and_go(folder):
    def held_out(seed=0):
        return {r.id for r in load(folder, "test", test_fraction=0.3, seed=seed)}

    before = held_out()
    assert 8 <= len(before) <= 28 and before != held_out(seed=1)
    assert not before & {r.id for r in load(folder, "train", test_fraction=0.3)}
    touch(folder, *(f"run/new{i}.mp4" for i in range(20)))
    assert {i for i in held_out() if "new" not in i} == before


@pytest.mark.parametrize("lists", [False, True])
def test_splits_of_its_own(tmp_path, lists):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")
    if lists:
        (tmp_path / "train.csv").write_text("path,label\ntrain/a/1.mp4,a\ntrain/b/2.mp4,b\n")
        (tmp_path / "val.csv").write_text("path,label\nval/a/3.mp4,a\n")
    options = {"csv": "{split}.csv"} if lists else {}
    assert [len(load(tmp_path, split, **options)) for split in ("train", "val", "all")] == [2, 1, 3]
    assert load(tmp_path, "val", **options).class_names == ("a", "b")
    with pytest.raises(UserError, match=r"unknown split .* 'test'"):
        load(tmp_path, "test", **options)
    with pytest.raises(UserError, match="comes with its splits"):
        load(tmp_path, "val", test_fraction=0.5, **options)


def test_relative_to_vidjax_data_or_here(folder, monkeypatch):
    monkeypatch.setenv("VIDJAX_DATA", str(folder.parent))
    assert len(load(folder.name)) == 60
    monkeypatch.delenv("VIDJAX_DATA")
    monkeypatch.chdir(folder.parent)
    assert len(load(folder.name)) == 60


def test_fingerprint_tells_labels_and_order(folder):
    first = load(folder).fingerprint
    assert load(folder).fingerprint == first
    (folder / "wave/3.mp4").rename(folder / "bend/99.mp4")
    assert load(folder).fingerprint != first


def test_folder_mistakes_in_one_line(tmp_path, folder):
    empty = folder / "wave" / "empty"
    empty.mkdir()
    for root, options, message in [
        (tmp_path / "nowhere", {}, "nowhere does not exist"),
        (empty, {}, "no class folders"),
        (folder, {"split": "train"}, "no split 'train': set test_groups or test_fraction"),
        (folder, {"test_groups": ["p1"]}, "needs a CSV with a column 'group'"),
        (folder, {"test_fraction": 20}, "between 0 and 1"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            load(root, **({"split": "all"} | options))
        assert "\n" not in str(error.value)
    empty.rename(folder / "empty")
    with pytest.raises(UserError, match=r"class folder .*empty has no videos"):
        load(folder)


def test_class_without_training_videos(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "l.csv").write_text("path,label,group\na/1.mp4,a,g\nb/2.mp4,b,h\n")
    with pytest.raises(UserError, match="no video of class 'b'"):
        load(tmp_path, "train", csv="l.csv", test_groups=["h"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no column 'path' .*found: nothing"),
        ("path,group\n", "no column 'label' .*found: path, group"),
        ("path,label\n", "lists no videos"),
        ("path,label\na/1.mp4,\n", "line 2: path or label is empty"),
        ("path,label\na/1.mp4,a\na/2.mp4,a\n", "line 3: no such file: .*a/2.mp4"),
        ("path,label\na/1.mp4,a\na/1.mp4,a\n", "a/1.mp4 more than once"),
        ("path,label,start\na/1.mp4,a,soon\n", "line 2: 'soon' is not a time"),
    ],
)
def test_list_mistakes_in_one_line(tmp_path, text, message):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path, csv="l.csv")


def test_list_or_group_that_is_not_there(listed):
    with pytest.raises(UserError, match=r"none.csv does not exist"):
        load(listed, csv="none.csv")
    with pytest.raises(UserError, match=r"unknown group .* 'p11': did you mean p1"):
        load(listed, "test", csv="clips.csv", test_groups=["p11"])


def test_names_and_options():
    assert dataset_names() == ["features", "synthetic_motion", "video_folder"]
    with pytest.raises(UserError, match="unknown dataset 'video_foldr': did you mean video_folder"):
        load_source("video_foldr", "train")
    with pytest.raises(UserError, match="unknown option of dataset video_folder 'pth': did you mean path"):
        load_source("video_folder", "train", pth="x")
    with pytest.raises(UserError, match="needs the option 'path'"):
        load_source("video_folder", "train")
