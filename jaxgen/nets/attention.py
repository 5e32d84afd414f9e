"""Attention, written so that compilers make few passes over its weights.

Of T positions there are T x T weights, and reading and writing them is what
attention costs. Here they are made once, rounded once to the dtype of the
products, kept for the gradient as they are, and divided by their sum only
after the products, where there are fewer numbers.

On NVIDIA's GPUs cuDNN has a kernel that never writes the weights down (Dao et
al. 2022). JAXGEN_ATTENTION=cudnn takes it wherever it fits, see `fits_cudnn`. It
is off by default: no GPU has measured it here, and it has neither a
forward-mode derivative, which MeanFlow and consistency training want, nor a
second one, and no program with it can be exported. JAXGEN_ATTENTION=pallas does the
same on TPUs, by a kernel of ours that no TPU has run yet, see `nets.tpu_attention`;
it has no forward-mode derivative either.
"""

import os

import jax
import jax.numpy as jnp

Array = jax.Array
SWITCH = "JAXGEN_ATTENTION"  # in the environment
SHORTEST = 256  # positions, below which T x T weights fit into a few tiles
HEADS = ((0, 1), (0, 2))  # of [B, N, T, S] and [B, S, N, C]


def attend(q: Array, k: Array, v: Array, scale: float | None = None) -> Array:
  """softmax(scale * q k^T) v of every head (Vaswani et al. 2017, Eq. 1).

  Logits, their exponentials and all sums are float32, whatever q, k and v are.

  Args:
    q: What asks, [B, T, N, D].
    k: What is asked, [B, S, N, D].
    v: What it answers, [B, S, N, C].
    scale: Of the logits; None: D ** -0.5.

  Returns: [B, T, N, C], of v's dtype.
  """
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  default = lambda *qkv: _attend(*qkv, scale)
  kernel = os.environ.get(SWITCH)
  if kernel == "cudnn" and fits_cudnn(q, k, v):
    cudnn = lambda *qkv: _cudnn(*qkv, scale)
    return jax.lax.platform_dependent(q, k, v, cuda=cudnn, default=default)
  if kernel == "pallas" and min(q.shape[1], k.shape[1]) >= SHORTEST:
    from jaxgen.nets import tpu_attention  # and jax's compiler of kernels, which few want

    if tpu_attention.fits(q, k, v):
      pallas = lambda *qkv: tpu_attention.attend(*qkv, scale)
      return jax.lax.platform_dependent(q, k, v, tpu=pallas, default=default)
  return default(q, k, v)


def fits_cudnn(q: Array, k: Array, v: Array) -> bool:
  """Whether cuDNN is there and has a fused kernel for such arrays on any GPU since Ampere."""
  half = {x.dtype for x in (q, k, v)} in ({jnp.dtype("bfloat16")}, {jnp.dtype("float16")})
  d, c = q.shape[-1], v.shape[-1]
  long = min(q.shape[1], k.shape[1]) >= SHORTEST
  return half and long and d == c and d <= 128 and d % 8 == 0 and _has_cudnn()


def _has_cudnn() -> bool:
  """Tracing the kernel without cuDNN is an error, whatever platform it is for."""
  return any(device.platform == "gpu" for device in jax.local_devices())


def _cudnn(q: Array, k: Array, v: Array, scale: float) -> Array:
  return jax.nn.dot_product_attention(q, k, v, scale=scale, implementation="cudnn")


def _attend(q: Array, k: Array, v: Array, scale: float) -> Array:
  logits = jnp.einsum(
    "btnd,bsnd->bnts", q * jnp.asarray(scale, q.dtype), k, preferred_element_type=jnp.float32
  )
  return _mean(logits, v).astype(v.dtype)


@jax.custom_jvp
def _mean(logits: Array, v: Array) -> Array:
  """Means of v by softmax, [B, N, T, S], [B, S, N, C] -> [B, T, N, C]."""
  return _weighed(logits, v)[0]


def _weighed(logits: Array, v: Array) -> tuple[Array, Array, Array]:
  """-> means, weights that are at most 1, and their sums [B, T, N, 1]."""
  w = jnp.exp(logits - logits.max(-1, keepdims=True)).astype(v.dtype)
  # The matrix unit sums what was rounded, and needs no other pass for it.
  total = _product(w, jnp.ones((*v.shape[:-1], 1), v.dtype))
  return _product(w, v) / total, w, total


@_mean.defjvp
def _mean_jvp(primals, tangents):
  """d mean = (w dl) v - (w dl) mean + w dv, with w over its sum.

  Transposed, it is the gradient of Dao et al. 2022 (FlashAttention), App. B.2:
  dl = w (g v^T - g mean). Both products take the same rounded g, or what should
  cancel would not.
  """
  (logits, v), (dl, dv) = primals, tangents
  mean, w, total = _weighed(logits, v)
  rounded = lambda x: x.astype(v.dtype).astype(jnp.float32)
  change = w.astype(jnp.float32) * rounded(dl)
  gain = jnp.moveaxis(change.sum(-1, keepdims=True), 1, 2)
  return mean, rounded(_product(change, v) - gain * mean + _product(w, dv)) / total


def _product(w: Array, v: Array) -> Array:
  """[B, N, T, S], [B, S, N, C] -> [B, T, N, C] in float32."""
  return jnp.moveaxis(
    jax.lax.dot_general(w, v, (((3,), (1,)), HEADS), preferred_element_type=jnp.float32), 1, 2
  )
