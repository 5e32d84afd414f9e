"""MeanFlow and its improved form: average velocities, and samples in one step.

Geng et al. 2025 (arXiv 2505.13447) and 2025 (arXiv 2512.02012). On the straight
path z_t = (1 - t) x + t eps, t from 0 (data) to 1 (noise), the average velocity

  u(z_t, t, r) = 1 / (t - r) int_r^t v(z_s, s) ds

takes any z_t to z_r = z_t - (t - r) u in one step, and satisfies

  u = v - (t - r) du/dt,   du/dt = v du/dz + du/dt at constant z

(Eq. 6 of the former), which a net learns with one forward-mode derivative.

What is drawn for an example is of its own key: with what chance r = t, or the
label is dropped. The published code takes the first rows of a batch for both, so
that it drops labels only where r = t; here both are independent.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core import Array, Batch, Groups, Key, Metrics, Player, State
from jaxgen.diffusion import times
from jaxgen.diffusion.denoiser import Denoise
from jaxgen.diffusion.process import Flow, Noise
from jaxgen.diffusion.traits import traits
from jaxgen.keys import fold, normal
from jaxgen.models.diffusion import LONGEST, count

GUIDE = {"omega": 1.0, "t_min": 0.0, "t_max": 1.0}  # knobs, without guidance
stop = jax.lax.stop_gradient


class Draw(NamedTuple):
  """What chance says of a batch: all but `eps` are [B, 1, .., 1].

  The last three are the improved form's: the scale of guidance, and the times
  between which it guides.
  """

  t: Array
  r: Array  # at most t
  eps: Array  # like x
  dropped: Array  # whether the label is
  omega: Array | float = 1.0
  t_min: Array | float = 0.0
  t_max: Array | float = 1.0


@dataclasses.dataclass(frozen=True)
class MeanFlow:
  """Learns the average velocity of straight paths from noise to data.

  Guidance is inside the target (Sec. 4.2, Eq. 19 of App. B.1): the velocity

    v_g = omega v + (1 - omega - kappa) u(z_t, t, t, none) + kappa u(z_t, t, t, y)

  where t_min <= t <= t_max; so a guided sample takes no second evaluation. With
  omega = 1 and kappa = 0 nothing is guided, and the net is evaluated once less.

  Attributes:
    net: F(z_t, c [B, K], y=, key=), shaped like z_t; c are the times t and t - r.
    draw_t: (key [B], ndim) -> t [B, 1, .., 1]; of two draws t is the larger.
    instant: Chance of r = t, where u is v.
    omega: Weight of the data's velocity, see above.
    kappa: Weight of the net's own, likewise: the effective scale of guidance is
      omega / (1 - kappa).
    t_min: Guidance begins at this time.
    t_max: It ends there.
    power: p of the weight 1 / (|error|^2 + floor)^p of an example (Eq. 22).
    floor: See power.
    path: (process, i, n) -> t, the times to sample at; i = 0 is the noisiest.
    steps: Their number when sampling does not say.
    classes: Number of labels. The net takes label `classes` for "none".
    label_drop: Share of labels dropped in training.
  """

  net: nn.Module
  draw_t: Callable = functools.partial(times.logit_normal, mean=-0.4)
  instant: float = 0.75
  omega: float = 1.0
  kappa: float = 0.0
  t_min: float = 0.0
  t_max: float = 1.0
  power: float = 1.0
  floor: float = 0.01
  path: Callable = times.even
  steps: int = 1
  classes: int = 0
  label_drop: float = 0.1

  sampled = ("net",)

  @property
  def players(self) -> Sequence[Player]:
    """One: the net."""
    return (Player("net", "net", self.loss),)

  @property
  def free(self) -> bool:
    """Whether it also samples without a label."""
    return self.classes > 0 and self.label_drop > 0

  @property
  def knobs(self) -> dict[str, float]:
    """`steps`, and those of the path."""
    return {"steps": self.steps} | traits(self.path).knobs

  def init(self, batch: Batch, key: Key) -> tuple[Groups, Groups]:
    """One key [] -> params, stats."""
    x, y = batch["x"], {"y": jnp.zeros(len(batch["x"]), jnp.int32)} if self.classes else {}
    c = jnp.zeros((len(x), len(self.columns(0.0, 0.0))))
    variables = dict(self.net.init(key, x, c, **y))
    return {"net": variables.pop("params")}, {"net": variables}

  def loss(self, state: State, batch: Batch, key: Key) -> tuple[Array, tuple[Groups, Metrics]]:
    """The weighted squared error of u, of what is drawn from keys [B]."""
    return self.loss_of(state, batch, self.draw(key, batch["x"].shape[1:]), fold(key, 3))

  def draw(self, key: Key, shape: Sequence[int]) -> Draw:
    """Keys [B], the shape of x -> times, noise and lost labels."""
    ndim = 1 + len(shape)
    pair = self.draw_t(fold(key, 0), ndim), self.draw_t(fold(key, 4), ndim)
    t, r = jnp.maximum(*pair), jnp.minimum(*pair)
    r = jnp.where(chance(fold(key, 5), self.instant, ndim), t, r)
    return Draw(t, r, normal(fold(key, 1), shape), chance(fold(key, 2), self.label_drop, ndim))

  def loss_of(
    self, state: State, batch: Batch, draw: Draw, key: Key | None = None
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """The loss for one draw; keys [B] for dropout inside the net."""
    t, r, y = draw.t, draw.r, self.labels(batch)
    z_t, v = (1 - t) * batch["x"] + t * draw.eps, draw.eps - batch["x"]
    v_g = stop(jnp.where(draw.dropped, v, self.guided(state, z_t, v, t, y)))
    y = self.drop(y, draw)
    u_of = lambda z, t, r: self.u(state, z, self.columns(t, r), y, key)
    u, du_dt = jax.jvp(u_of, (z_t, t, r), (v_g, jnp.ones_like(t), jnp.zeros_like(r)))
    error = squared(u - stop(v_g - (t - r) * du_dt))
    info = {"mse": jnp.mean(error) / v[0].size, "velocity": jnp.mean((u - v) ** 2)}
    return jnp.mean(self.weighted(error)), (state.stats, info)

  def guided(self, state: State, z: Array, v: Array, t: Array, y: Array | None) -> Array:
    """v_g, shaped like z."""
    if y is None or (self.omega == 1 and self.kappa == 0):
      return v
    inside = (self.t_min <= t) & (t <= self.t_max)
    omega, kappa = jnp.where(inside, self.omega, 1.0), jnp.where(inside, self.kappa, 0.0)
    velocity = lambda y: self.u(state, z, self.columns(t, t), y)
    v_g = omega * v + (1 - omega - kappa) * velocity(jnp.full_like(y, self.classes))
    return v_g + kappa * velocity(y) if self.kappa else v_g

  def weighted(self, error: Array) -> Array:
    """Errors [B], each with a gradient of about the same size."""
    return error / stop((error + self.floor) ** self.power)

  def columns(
    self, t: Array, r: Array, omega: Array = 1.0, t_min: Array = 0.0, t_max: Array = 1.0
  ) -> tuple[Array, ...]:
    """What the net is told: the columns of its c."""
    del omega, t_min, t_max  # those are in the target
    return t, t - r

  def u(
    self, state: State, z: Array, c: Sequence[Array], y: Array | None = None, key: Key | None = None
  ) -> Array:
    """The average velocity, shaped like z [B, ...]; see `F`."""
    return self.F(state, z, c, y, key)

  def F(
    self, state: State, z: Array, c: Sequence[Array], y: Array | None = None, key: Key | None = None
  ) -> Array:
    """The net itself; its columns c are [B, 1, .., 1] or [], and float32."""
    rows = (jnp.broadcast_to(jnp.ravel(jnp.asarray(a, float)), (len(z),)) for a in c)
    label = {} if y is None else {"y": y}
    return self.net.apply(state.variables("net"), z, jnp.stack([*rows], -1), key=key, **label)

  def labels(self, batch: Batch) -> Array | None:
    """[B]: -1, or none at all, is label `classes`; None where it knows no labels."""
    if not self.classes:
      return None
    if "y" not in batch and not self.free:
      raise ValueError("this model always had labels: give it batch['y']")
    y = batch.get("y", jnp.full(len(batch["x"]), -1))
    return jnp.where(y < 0, self.classes, y)

  def drop(self, y: Array | None, draw: Draw) -> Array | None:
    """Labels, a share of which is lost."""
    return y if y is None else jnp.where(jnp.ravel(draw.dropped), self.classes, y)

  def path_points(self, knobs: Mapping[str, Any]) -> tuple[Noise, Array | int]:
    """The path for all these knobs, [LONGEST], and how many points it has."""
    n = count(knobs["steps"], LONGEST)
    own = {k: knobs[k] for k in traits(self.path).knobs}
    return Flow()(self.path(Flow(), jnp.arange(LONGEST), n, **own)), n

  def denoiser(self, state: State, batch: Batch, **guide: Array | float) -> Denoise:
    """D(z_t, t) = z_t - t u(z_t, t, t), for u is the velocity there: the mean of x.

    On the process Flow. `guide`: knobs of guidance, where there are any.
    """
    y = self.labels(batch)
    return lambda z, t: z - t.t * self.u(state, z, self.columns(t.t, t.t, **guide), y)

  def sample(self, state: State, batch: Batch, key: Key, **knobs) -> Array:
    """Keys [B] -> x in [-1, 1] or a little beyond, conditioned like `batch`.

    Labels of -1 (or none at all) ask for unconditional samples, where labels
    were dropped in training. A batch with "noise" ~ N(0, 1) begins there.
    """
    knobs = self.knobs | knobs
    path, n = self.path_points(knobs)
    at = lambda i: path.t[i]
    z = batch["noise"] if "noise" in batch else normal(fold(key, 0), batch["x"].shape[1:])

    y = self.labels(batch)
    guide = {k: knobs[k] for k in GUIDE if k in knobs}

    def step(i, z):
      t, r = at(i), jnp.where(i + 1 < n, at(i + 1), 0.0)
      return z - (t - r) * self.u(state, z, self.columns(t, r, **guide), y)

    return jax.lax.fori_loop(0, n, step, z)

  def nfe(self, **knobs) -> int:
    """How often the net is evaluated for one sample: as many times as there are steps."""
    return min(max(int((self.knobs | knobs)["steps"]), 1), LONGEST)


@dataclasses.dataclass(frozen=True)
class ImprovedMeanFlow(MeanFlow):
  """MeanFlow with a loss of velocities, and guidance that is chosen afterwards.

  The compound V = u + (t - r) sg(du/dt) is compared to v_g, which depends on no
  output of u; the derivative goes along the net's own velocity, not the data's
  (Geng et al. 2025b, Sec. 4.1). A second output, v, is that velocity: it is
  learned beside u and never read when sampling. Scale and interval of guidance
  are drawn in training, 1 <= omega <= `most`, and are knobs when sampling:

    v_g = v_data + (1 - 1 / omega) (v(z_t, y) - v(z_t, none))

  The net is F(z_t, c [B, K], y=, key=) with u, then v, as channels; c are h =
  t - r, and with labels 1 - 1 / omega, t_min and t_max. It is told h alone, and
  finds t in z_t, unless it is `timed`. Without labels nothing is guided.

  Attributes:
    most: Scales are exp(U ln most), U uniform in [0, 1).
    guide: Scale and interval when sampling does not say.
    timed: Whether t is the first column of c.
  """

  instant: float = 0.5
  most: float = 8.0
  guide: Sequence[float] = (1.0, 0.0, 1.0)
  timed: bool = False

  @property
  def knobs(self) -> dict[str, float]:
    """`steps`, those of the path; with labels `omega`, `t_min` and `t_max`."""
    own = dict(zip(GUIDE, self.guide, strict=True)) if self.classes else {}
    return super().knobs | own

  def draw(self, key: Key, shape: Sequence[int]) -> Draw:
    """As without improvement, and a scale and interval.

    Where r = t the interval is all of time.
    """
    draw = super().draw(key, shape)
    omega, low, high = (uniform(fold(key, i), draw.t.ndim) for i in (6, 7, 8))
    always = draw.t == draw.r
    return draw._replace(
      omega=jnp.exp(omega * jnp.log(self.most)),
      t_min=jnp.where(always, 0.0, low / 2),
      t_max=jnp.where(always, 1.0, 0.5 + high / 2),
    )

  def loss_of(
    self, state: State, batch: Batch, draw: Draw, key: Key | None = None
  ) -> tuple[Array, tuple[Groups, Metrics]]:
    """The loss for one draw; keys [B] for dropout inside the net."""
    t, r, y = draw.t, draw.r, self.labels(batch)
    z_t, v_data = (1 - t) * batch["x"] + t * draw.eps, draw.eps - batch["x"]
    v_g, along = self.velocities(state, z_t, v_data, draw, y)
    v_g, along = stop(jnp.where(draw.dropped, v_data, v_g)), stop(along)
    y = self.drop(y, draw)
    guide = {k: getattr(draw, k) for k in GUIDE}
    uv = lambda z, t, r: self.uv(state, z, self.columns(t, r, **guide), y, key)
    tangents = along, jnp.ones_like(t), jnp.zeros_like(r)
    u, du_dt, v = jax.jvp(uv, (z_t, t, r), tangents, has_aux=True)
    errors = squared(u + (t - r) * stop(du_dt) - v_g), squared(v - v_g)
    of_u, of_v = (jnp.mean(error) / v[0].size for error in errors)
    loss = sum(jnp.mean(self.weighted(error)) for error in errors)
    return loss, (state.stats, {"mse": of_u, "velocity": of_v})

  def velocities(
    self, state: State, z: Array, v_data: Array, draw: Draw, y: Array | None
  ) -> tuple[Array, Array]:
    """v_g, and the net's own v along which u is differentiated."""
    inside = (draw.t_min <= draw.t) & (draw.t <= draw.t_max)
    omega = jnp.where(inside, draw.omega, 1.0)
    own = lambda omega, y: self.uv(state, z, self.columns(draw.t, draw.t, omega), y)[1]
    v = own(omega, y)
    if y is None:
      return v_data, v
    return v_data + (1 - 1 / omega) * (v - own(1.0, jnp.full_like(y, self.classes))), v

  def columns(
    self, t: Array, r: Array, omega: Array = 1.0, t_min: Array = 0.0, t_max: Array = 1.0
  ) -> tuple[Array, ...]:
    """What the net is told: the columns of its c."""
    guide = (1 - 1 / omega, t_min, t_max) if self.classes else ()
    return (*([t] if self.timed else []), t - r, *guide)

  def uv(
    self, state: State, z: Array, c: Sequence[Array], y: Array | None = None, key: Key | None = None
  ) -> tuple[Array, Array]:
    """The average velocity and the other, each shaped like z."""
    return tuple(jnp.split(self.F(state, z, c, y, key), 2, -1))

  def u(
    self, state: State, z: Array, c: Sequence[Array], y: Array | None = None, key: Key | None = None
  ) -> Array:
    """The average velocity, shaped like z [B, ...]; see `F`."""
    return self.uv(state, z, c, y, key)[0]


def chance(key: Key, p: float, ndim: int) -> Array:
  """Keys [B] -> whether something of probability p happens, [B, 1, .., 1]."""
  return jax.vmap(jax.random.bernoulli, (0, None))(key, p).reshape(-1, *[1] * (ndim - 1))


def uniform(key: Key, ndim: int) -> Array:
  """Keys [B] -> U[0, 1), [B, 1, .., 1]."""
  return jax.vmap(jax.random.uniform)(key).reshape(-1, *[1] * (ndim - 1))


def squared(error: Array) -> Array:
  """The sum of an example's squares, [B, ...] -> [B]."""
  return jnp.sum(error**2, range(1, error.ndim))
