"""The keys of a config, with their defaults, choices and ranges."""

import ml_collections

from vidjax.data.auto_augment import INTERPOLATIONS
from vidjax.data.sampling import STARTS
from vidjax.data.transforms import RESIZES
from vidjax.flow import METHODS

ConfigDict = ml_collections.ConfigDict


def schema() -> ConfigDict:
    """Returns all config keys with their defaults. None marks an optional value."""
    return ConfigDict(
        dict(
            seed=0,
            batch=16,  # clips per update, over all devices and accumulation steps
            epochs=0.0,  # length of training; set either `epochs` or `steps`
            steps=0,
            smoke=False,  # quick test with the tiny preset on a few embedded clips
            data=dict(
                name="",  # see vidjax.data.datasets.dataset_names()
                options={},  # arguments of the dataset, such as `path`
                train_split="train",
                eval_split="test",
                frames=16,
                stride=2.0,  # source frames from one sampled frame to the next
                target_fps=None,  # if set, `stride` counts frames at this frame rate
                sampling="window",  # window | uniform | segments | hierarchical
                dense_frames=None,  # hierarchical: frames of the dense window; None is half of `frames`
                starts="ends",  # ends | left | centers: positions of the test clips of window, hierarchical
                short="loop",  # loop | hold: padding of videos shorter than a clip
                size=112,  # side of the square crop, pixels
                short_side=128,  # test resize before the crop, pixels
                resize_to=None,  # test resize to (height, width) instead of short_side, ignoring the aspect
                resize="area",  # method of the test resize, see vidjax.data.transforms.RESIZES
                crop="random_resized",  # random_resized | multi_scale | short_side | center
                scale=(0.35, 1.0),  # random_resized: fraction of the frame's area
                ratio=(0.75, 1.3333333),  # random_resized: width / height
                short_side_range=(128, 160),  # short_side: range of the random resize, pixels
                short_side_inverse=False,  # short_side: draw the inverse of the length uniformly
                flip=True,  # horizontal flip; disable if mirroring changes the label
                color_jitter=0.0,
                color_jitter_probability=1.0,
                grayscale=0.0,  # probability that a clip loses its colors
                auto_augment=None,  # in timm's notation, e.g. rand-m7-n4-mstd0.5-inc1 (4 random operations)
                auto_augment_fill=(128, 128, 128),  # color of what rotations, shears and translations uncover
                auto_augment_interpolation="bicubic",  # bicubic | bilinear | random (one of both)
                repeats=1,  # clips per loaded video, augmented separately; `batch` counts clips
                repeats_apart=False,  # sample a different time for each repeat
                grey=False,  # one gray channel instead of three
                mean=None,  # per channel, for pixels in [0, 1]; None uses the mean of the model
                std=None,  # per channel; None uses that of the model
                workers=0,  # decoding processes of one thread each; 0 decodes on threads of this process
                threads="auto",  # number of these threads; auto: one per core, see vidjax.data.cores
                timeout=60.0,  # seconds to read a clip, after which its worker is stopped and it is replaced
                cache="auto",  # auto | True | False: cache decoded frames on disk, in $VIDJAX_CACHE
                cache_gb=4.0,  # auto: cache a split if its frames take at most this many GB
                host_shards=False,  # each host reads only its own part of the videos, see docs/training.md
                prefetch=2,  # batches prefetched to the device
                feature_width=None,  # width D of the rows of the dataset "features"
                feature_tokens=1,  # tokens per row of dense features
                flow=dict(  # optical flow, computed while loading for models that take it
                    method="dis",  # dis | farneback | tvl1 (requires OpenCV with contrib modules)
                    bound=20.0,  # clipping bound of the displacement, pixels of the crop
                    frames=10,  # beside rgb: flow fields per clip, centered on the middle of its frames
                    stride=1.0,  # beside rgb: source frames from one field to the next
                ),
                audio=dict(  # waveform, for models and tasks that take it
                    rate=16000,
                    seconds=1.0,
                    stream=None,  # number of the audio track, or its language; None: ffmpeg's best
                    absent="error",  # error | mask: of a video without the track, see vidjax.data.streams
                ),
                text=dict(length=64),  # tokens of the query or question, for models and tasks that take it
                bad_limit=0.05,  # fraction of unreadable videos above which training stops
            ),
            model=dict(
                name="",  # see vidjax.list_models()
                tiny=False,  # the tiny preset
                dtype="float32",  # float32 | bfloat16: computation; parameters are always float32
                freeze_bn=False,  # freeze statistics, scale and bias of BatchNorm
                precise_bn_batches=0,  # training batches to recompute BatchNorm statistics from; 0: off
                options={},  # fields of the linen class
            ),
            init=dict(
                path="",  # workdir, checkpoint or weights file to initialize from (docs/weights.md)
                which="last",  # checkpoint of a workdir: last | best | a step
                skip=(),  # regexes of parameter paths that are newly initialized
                inflation=None,  # average | centre: inflation of 2D kernels to 3D
            ),
            task=dict(name="classification"),  # and the options of the task, see vidjax.tasks
            optimizer=dict(
                name="sgd",  # sgd | adamw | rmsprop
                lr=0.1,
                lr_batch=None,  # if set, the peak learning rate is lr * batch / lr_batch
                momentum=0.9,  # sgd, rmsprop
                nesterov=False,
                b1=0.9,  # adamw
                b2=0.999,  # adamw, rmsprop: decay of the mean square
                eps=1e-8,  # adamw: added outside the square root; rmsprop: inside
                weight_decay=0.0,
                decay_all=False,  # apply weight decay to biases and norms as well
                clip_norm=None,  # maximum global gradient norm
                clip_each=None,  # maximum gradient norm of each tensor
                layer_decay=None,  # learning-rate factor from each block to the one below it, e.g. 0.75
                trunk_lr=None,  # learning-rate factor of all parameters except the classifier
                groups=(),  # (name, regex of paths, {"weight_decay": 0.0, "lr": 0.1, "frozen": True}), …
                ema=None,  # decay of the averaged weights used for evaluation, e.g. 0.999
                nonfinite="stop",  # stop | skip: action on a non-finite loss or gradient
            ),
            schedule=dict(
                name="cosine",  # cosine | step | constant
                warmup_epochs=0.0,
                warmup_lr=0.0,  # fraction of the peak learning rate at the start of warmup
                end_lr=0.0,  # cosine: fraction of the peak learning rate at the end
                milestones=(),  # step: epochs at which the learning rate is multiplied by `factor`
                factor=0.1,
            ),
            parallel=dict(
                mode="jit",  # jit | pmap
                # devices along each axis, see vidjax.sharding; -1: all remaining devices
                mesh=dict(data=-1, fsdp=1, tensor=1, context=1),
                # ((regex of parameter paths, axis of each of the last dimensions, or "fsdp"), …); None: the
                # table of the model's family
                rules=None,
                accumulation=1,  # gradient accumulation steps per update
                host_timeout=60.0,  # seconds without a heartbeat after which another host is considered lost
            ),
            evals={},  # NAME=dict(type=…, split=…, every=…, …), see vidjax.evaluation; default: val
            checkpoint=dict(
                every_epochs=1.0,
                every_minutes=None,  # in addition, when the last one is older
                keep=1,  # the latest ones
                keep_every_epochs=None,  # in addition, those at multiples of this
                best="val",  # the evaluation by whose headline metric the best one is kept in addition
            ),
            report=True,  # write report.html at the end
            wandb=dict(project="", mode="online"),  # if set, also log to Weights & Biases; online | offline
            log_every=10,  # steps
            expected=dict(top1=None, source=""),  # the result to reproduce, in percent, and its source
        )
    )


CHOICES = {
    "wandb.mode": ("online", "offline"),
    "data.sampling": ("window", "uniform", "segments", "hierarchical"),
    "data.short": ("loop", "hold"),
    "data.starts": STARTS,
    "data.resize": tuple(RESIZES),
    "data.flow.method": METHODS,
    "data.audio.absent": ("error", "mask"),
    "data.auto_augment_interpolation": tuple(INTERPOLATIONS),
    "data.crop": ("random_resized", "multi_scale", "short_side", "center"),
    "data.cache": ("auto", "True", "False"),
    "init.inflation": ("average", "centre"),
    "model.dtype": ("float32", "bfloat16"),
    "optimizer.name": ("sgd", "adamw", "rmsprop"),
    "optimizer.nonfinite": ("stop", "skip"),
    "schedule.name": ("cosine", "step", "constant"),
    "parallel.mode": ("jit", "pmap"),
}
_SIZE, _COUNT, _SHARE = (1, 2**13), (1, 2**24), (0.0, 1.0)
_ANY, _POSITIVE = (0.0, 1e30), (1e-30, 1e30)
# Closed range of each number, or of each element of a tuple. Optional values may also be None.
RANGES = {
    "seed": (0, 2**32 - 1),
    "batch": _COUNT,
    "epochs": (0.0, 1e6),
    "steps": (0, 2**31 - 1),
    "data.frames": (1, 2**16),
    "data.dense_frames": (1, 2**16),
    "data.stride": (1e-3, 1e6),
    "data.target_fps": (1e-3, 1e4),
    "data.size": _SIZE,
    "data.resize_to": _SIZE,
    "data.mean": (-1e3, 1e3),
    "data.std": (1e-6, 1e3),
    "data.short_side": _SIZE,
    "data.scale": (1e-6, 1.0),
    "data.ratio": (1e-3, 1e3),
    "data.short_side_range": _SIZE,
    "data.color_jitter": (0.0, 1.0),
    "data.color_jitter_probability": _SHARE,
    "data.grayscale": _SHARE,
    "data.auto_augment_fill": (0, 255),
    "data.repeats": (1, 2**10),
    "data.workers": (0, 2**10),
    "data.threads": (1, 2**10),
    "data.timeout": (0.01, 86400.0),
    "data.prefetch": (1, 2**10),
    "data.feature_width": (1, 2**20),
    "data.feature_tokens": (1, 2**20),
    "data.audio.rate": (100, 384_000),
    "data.audio.seconds": (1e-3, 1e4),
    "data.text.length": (1, 2**20),
    "model.precise_bn_batches": (0, 2**20),
    "data.flow.bound": (1e-3, 1e4),
    "data.flow.frames": (1, 2**10),
    "data.flow.stride": (1e-3, 1e6),
    "data.bad_limit": _SHARE,
    "data.cache_gb": (0.0, 1e6),
    "optimizer.lr": (0.0, 1e38),
    "optimizer.lr_batch": _COUNT,
    "optimizer.momentum": (0.0, 0.999999),
    "optimizer.b1": (0.0, 0.999999),
    "optimizer.b2": (0.0, 0.9999999),
    "optimizer.eps": (0.0, 1.0),
    "optimizer.weight_decay": _ANY,
    "optimizer.clip_norm": _POSITIVE,
    "optimizer.clip_each": _POSITIVE,
    "optimizer.layer_decay": (1e-6, 1.0),
    "optimizer.trunk_lr": _ANY,
    "optimizer.ema": (0.0, 0.9999999),
    "schedule.warmup_epochs": (0.0, 1e6),
    "schedule.warmup_lr": _SHARE,
    "schedule.end_lr": _SHARE,
    "schedule.milestones": (0.0, 1e6),
    "schedule.factor": _ANY,
    "parallel.mesh.data": (-1, 2**20),
    "parallel.mesh.fsdp": (-1, 2**20),
    "parallel.mesh.tensor": (-1, 2**20),
    "parallel.mesh.context": (-1, 2**20),
    "parallel.accumulation": (1, 2**16),
    "parallel.host_timeout": (1.0, 86400.0),
    "checkpoint.every_epochs": (0.0, 1e6),
    "checkpoint.every_minutes": (0.001, 1e6),
    "checkpoint.keep": (1, 2**20),
    "checkpoint.keep_every_epochs": (1e-6, 1e6),
    "log_every": (1, 2**31 - 1),
    "expected.top1": (0.0, 100.0),
}

# Tuples whose default is None.
TUPLES = ("data.resize_to", "data.mean", "data.std")
