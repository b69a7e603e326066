"""Winograd convolution for kernels that are 3x3 in space and of any length in time.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308: F(4x4, 3x3), equation 12,
makes 4x4 outputs from a 6x6 tile of the input with 36 multiplications per pair of channels, where direct
convolution needs 144. Frames are transformed in small blocks that fit a CPU's cache, and the temporal taps
are summed in the transform domain: one matrix product per position,
[tiles, taps * Cin] by [taps * Cin, Cout].
The interpolation points can be chosen freely (Toom and Cook). The usual 0, 1, -1, 2, -2 and infinity have
more than twice the rounding error of 0, 2/3, -2/3, 3/2, -3/2 and infinity, which stay near 1e-6 of the output
where direct convolution stays near 4e-7. Barabasz et al., arXiv:1803.10986, discuss the choice.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pads = tuple[tuple[int, int], ...]


def _transforms(points: tuple[float, ...], out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (B^T, G, A^T) of F(out x out, 3x3) as Kronecker products, float32, at `points` and infinity."""
    n = len(points) + 1
    norm = [np.prod([p - q for q in points if q != p]) for p in points]
    a_t = np.vander(points, out, increasing=True).T
    g = np.vander(points, 3, increasing=True) / np.array(norm)[:, None]
    b_t = [np.append(np.poly([q for q in points if q != p])[::-1], 0) for p in points]
    a_t = np.hstack([a_t, np.eye(out)[:, -1:]])
    g = np.vstack([g, np.eye(3)[-1:]])
    b_t = np.vstack([*b_t, np.poly(points)[::-1]])
    assert b_t.shape == (n, n)
    return tuple(np.kron(m, m).astype(np.float32) for m in (b_t, g, a_t))


TILE = 4  # outputs along an edge
N = TILE + 2  # inputs along an edge
B_T, G, A_T = _transforms((0, 2 / 3, -2 / 3, 3 / 2, -3 / 2), TILE)  # [36, 36], [36, 9], [16, 36]
ROWS = 64  # fewest tiles per step of the scan; with fewer the matrix products are too small


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolves `x` [B, T, H, W, Cin] with `kernel` [taps, 3, 3, Cin, Cout] at stride 1; both float32.

    `pads` are the (before, after) zeros of T, H and W. Returns [B, T', H', W', Cout]. Differentiable once, in
    reverse.
    """
    taps, _, _, _, features = kernel.shape
    blocks = _Blocks(x, taps, pads)
    u = (G @ kernel.transpose(1, 2, 0, 3, 4).reshape(9, -1)).reshape(N * N, -1, features)

    def step(past, i):
        past, v = blocks.tiles(past, i)
        y = A_T @ jnp.stack([v[e] @ u[e] for e in range(N * N)]).reshape(N * N, -1)
        y = y.reshape(TILE, TILE, *blocks.shape, features).transpose(2, 3, 4, 0, 5, 1, 6)
        return past, blocks.crop(y)

    _, y = lax.scan(step, blocks.first(), jnp.arange(blocks.count))
    y = y.swapaxes(0, 1)
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, : blocks.out[0]]


def _forward(x, kernel, pads):
    return winograd(x, kernel, pads), (x, kernel)


def _backward(pads, saved, dy):
    x, kernel = saved
    back = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(kernel.shape, pads))
    dx = winograd(dy, kernel[::-1, ::-1, ::-1].swapaxes(3, 4), back)
    return dx, _kernel_gradient(x, dy, kernel.shape, pads)


winograd.defvjp(_forward, _backward)


def _kernel_gradient(x, dy, shape, pads):
    taps, _, _, channels, features = shape
    blocks = _Blocks(x, taps, pads)
    dy = blocks.pad_output(dy)

    def step(carry, i):
        past, du = carry
        past, v = blocks.tiles(past, i)
        dm = A_T.T @ blocks.output_tiles(dy, i).reshape(TILE * TILE, -1)
        dm = dm.reshape(N * N, -1, features)
        return (past, du + jnp.stack([v[e].T @ dm[e] for e in range(N * N)])), None

    start = (blocks.first(), jnp.zeros((N * N, taps * channels, features), x.dtype))
    (_, du), _ = lax.scan(step, start, jnp.arange(blocks.count))
    dk = G.T @ du.reshape(N * N, -1)
    return dk.reshape(3, 3, taps, channels, features).transpose(2, 0, 1, 3, 4)


class _Blocks:
    """Splits an input along T into `count` blocks of output frames, and each block into tiles."""

    def __init__(self, x, taps, pads):
        sizes = [n + sum(p) - k + 1 for n, p, k in zip(x.shape[1:4], pads, (taps, 3, 3))]
        self.out = tuple(sizes)
        rows, columns = (-(-n // TILE) for n in sizes[1:])
        frames = min(sizes[0], -(-ROWS // (x.shape[0] * rows * columns)))
        self.count = -(-sizes[0] // frames)
        self.shape = (x.shape[0], frames, rows, columns)
        self.taps = taps
        padded = (self.count * frames, rows * TILE, columns * TILE)
        self.spare = [(0, 0), *((0, p - n) for p, n in zip(padded, sizes)), (0, 0)]
        pads = [(before, after + spare) for (before, after), (_, spare) in zip(pads, self.spare[1:4])]
        self.x = jnp.pad(x, ((0, 0), *pads, (0, 0)))

    def _transform(self, x):
        """Transforms frames [B, f, H, W, C] to tiles [36, B, f, rows * columns, C]."""
        b, f, channels, (rows, columns) = *x.shape[:2], x.shape[-1], self.shape[2:]
        height, width = TILE * (rows - 1) + 1, TILE * (columns - 1) + 1
        d = [x[:, :, i : i + height : TILE, j : j + width : TILE] for i in range(N) for j in range(N)]
        return (B_T @ jnp.stack(d).reshape(N * N, -1)).reshape(N * N, b, f, rows * columns, channels)

    def first(self):
        """Returns the transformed frames before the first block, the first carry of the scan."""
        return self._transform(self.x[:, : self.taps - 1])

    def tiles(self, past, i):
        """Returns the frames that block i + 1 reuses and block i's tiles, [36, B * f * tiles, taps * C]."""
        f = self.shape[1]
        new = lax.dynamic_slice_in_dim(self.x, i * f + self.taps - 1, f, axis=1)
        v = jnp.concatenate([past, self._transform(new)], axis=2)
        taps = jnp.concatenate([v[:, :, k : k + f] for k in range(self.taps)], axis=-1)
        return v[:, :, f:], taps.reshape(N * N, -1, taps.shape[-1])

    def crop(self, y):
        """Crops the output tiles of a block [B, f, rows, 4, columns, 4, C] to frames [B, f, H', W', C]."""
        b, f, rows, columns = self.shape
        y = y.reshape(b, f, rows * TILE, columns * TILE, -1)
        return y[:, :, : self.out[1], : self.out[2]]

    def pad_output(self, dy):
        return jnp.pad(dy, self.spare)

    def output_tiles(self, dy, i):
        """Returns block i of the padded output gradient as [4, 4, B, f, rows, columns, C]."""
        b, f, rows, columns = self.shape
        dy = lax.dynamic_slice_in_dim(dy, i * f, f, axis=1)
        return dy.reshape(b, f, rows, TILE, columns, TILE, -1).transpose(3, 5, 0, 1, 2, 4, 6)
