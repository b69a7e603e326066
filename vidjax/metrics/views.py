"""Which videos are classified correctly from some of their test views.

The score of a video is the mean softmax over the views used, as in `vidjax.metrics.classification`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

_VIDEOS = 64  # processed at a time, so that their scores fit into the cache


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Returns `count` of `total` indices from the first to the last, or the middle one, int64 [count].

    Index i is i (total - 1) / (count - 1), rounded with halves down. If count - 1 divides total - 1, clips so
    chosen are those that `vidjax.data.sampling.test_clips` returns for `count` clips, else the nearest to
    them. The middle of an even total is the index before it.

    Raises:
      ValueError: `count` is not from 1 to `total`.
    """
    if not 1 <= count <= total:
        raise ValueError(f"cannot choose {count} of {total}")
    if count == 1:
        return np.array([(total - 1) // 2])
    return (2 * np.arange(count) * (total - 1) + count - 2) // (2 * (count - 1))


def protocol_views(clips: int, crops: int, of_clips: int, of_crops: int) -> np.ndarray:
    """Returns the views of `of_clips` x `of_crops` that make up clips x crops, int64 [clips * crops].

    Clips and crops are `evenly_spaced`. Views are numbered clip by clip.
    """
    chosen = evenly_spaced(of_clips, clips)[:, None] * of_crops + evenly_spaced(of_crops, crops)
    return chosen.ravel()


def correct_by_subset(logits: np.ndarray, labels: np.ndarray, subsets: Sequence[np.ndarray]) -> np.ndarray:
    """Returns whether each video is classified correctly from each of M subsets of its views, bool [N, M].

    Args:
      logits: [N, V, K], one row per view.
      labels: int [N].
      subsets: indices of views.
    """
    rows = [
        np.stack([p[:, s].sum(1).argmax(-1) == y for s in subsets], 1) for p, y in _softmax(logits, labels)
    ]
    return np.concatenate(rows)


def correct_by_count(logits: np.ndarray, labels: np.ndarray, orders: int = 20, seed: int = 0) -> np.ndarray:
    """Returns how often each video is classified correctly from n random views, for n = 1..V, float64 [N, V].

    The n views are the first of a random order without repetition, averaged over `orders` orders that are
    drawn for each video. The first column is exact, the share of correct views, so that its mean is the clip
    accuracy; the mean of the last one is the video accuracy.

    Args:
      logits: [N, V, K], one row per view.
      labels: int [N].
      orders: number of random orders per video.
      seed: of the orders.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for p, y in _softmax(logits, labels):
        right = np.zeros(p.shape[:2])
        for _ in range(orders):
            order = rng.permuted(np.tile(np.arange(p.shape[1]), (len(p), 1)), axis=1)
            scores = np.zeros_like(p[:, 0])
            for n, view in enumerate(order.T):
                scores += p[np.arange(len(p)), view]
                right[:, n] += scores.argmax(-1) == y
        right /= orders
        right[:, 0] = (p.argmax(-1) == y[:, None]).mean(1)
        rows.append(right)
    return np.concatenate(rows)


def _softmax(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the probabilities float64 [n, V, K] and the labels of a few videos at a time."""
    for start in range(0, len(logits), _VIDEOS):
        x = logits[start : start + _VIDEOS].astype(np.float64)
        e = np.exp(x - x.max(-1, keepdims=True))
        yield e / e.sum(-1, keepdims=True), labels[start : start + _VIDEOS]
