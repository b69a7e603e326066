"""Moments in Time and Multi-Moments in Time in their published form."""

from official import check, refuses, write

NAMES = "clapping,0\nadult+female+singing,2\nblocking,1\n"


def test_moments_of_a_split(tmp_path):
    lists = {
        "moments_categories.txt": NAMES,
        "trainingSet.csv": "blocking/getty-karate-video-id635808620_4.mp4,blocking,4,0\n"
        "adult+female+singing/0P3XG_vf91c_35.mp4,adult+female+singing,3,1\n",
        "validationSet.csv": "adult+female+singing/0P3XG_vf91c_35.mp4,adult+female+singing,3,0\n"
        "blocking/x.mp4,jumping,3,0\n",
    }
    videos = (
        "training/blocking/getty-karate-video-id635808620_4.mp4",
        "training/adult+female+singing/0P3XG_vf91c_35.mp4",
        "validation/adult+female+singing/0P3XG_vf91c_35.mp4",
    )
    write(tmp_path, lists | dict.fromkeys(videos))
    train = check("moments_in_time", "train", path=tmp_path)
    assert train.class_names == ("clapping", "blocking", "adult+female+singing")
    assert [r.target.label for r in train.records] == [1, 2]
    assert [r.video for r in train.records] == [str(tmp_path / video) for video in videos[:2]]
    val = check("moments_in_time", "val", path=tmp_path, bad_limit=0.5)
    assert [r.video for r in val.records] == [str(tmp_path / videos[2])]
    refuses("moments_in_time", "val", "line 2: unknown class 'jumping'", path=tmp_path)
    refuses("moments_in_time", "test", "unknown split of moments_in_time 'test'", path=tmp_path)
    write(tmp_path, {"moments_categories.txt": "clapping,1\n"})
    refuses("moments_in_time", "val", "moments_categories.txt does not consist of lines", path=tmp_path)


def test_multi_moments_of_a_split(tmp_path):
    lists = {
        "moments_categories.txt": NAMES,
        "trainingSet.csv": "blocking/a.mp4,2,0\nclapping/b.mp4,1,1\n",
        "validationSet.txt": "clapping/b.mp4,3\nclapping/b.mp4\n",
    }
    write(tmp_path, lists | {"videos/blocking/a.mp4": None, "training/clapping/b.mp4": None})
    train = check("multi_moments", "train", path=tmp_path)
    assert [(r.id, r.target.labels) for r in train.records] == [
        ("blocking/a.mp4", (0, 2)),
        ("clapping/b.mp4", (1,)),
    ]
    refuses(
        "multi_moments", "val", "line 1: '.*,3' is not a video and labels below 3; .*line 2", path=tmp_path
    )
    refuses("multi_moments", "test", "unknown split of multi_moments 'test'", path=tmp_path)
