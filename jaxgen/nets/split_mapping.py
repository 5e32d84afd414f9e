"""GAN-Control's nets: a mapping in slices, and encoders of attributes (Shoshan et al. 2021).

Each attribute has its own slice of z, and a network of its own that makes the
same slice of w of it, so that slices do not mix before the first layer of the
synthesis (Sec. 3.1).
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nets.equalised import Dense, unit, weights_of

Array = jax.Array


class Stack(nn.Module):
  """Layers [B, I] -> [B, width], each followed by a leaky ReLU, the last one too.

  Attributes:
    width: Numbers that come out.
    hidden: Width of all layers but the last.
    layers: Their number.
    lr: Multiplier of the learning rate.
  """

  width: int
  hidden: int = 256
  layers: int = 8
  lr: float = 0.01

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.layers):
      width = self.width if i == self.layers - 1 else self.hidden
      x = Dense(width, self.lr, act=True, name=f"fc{i}")(x)
    return x


class SplitMapping(nn.Module):
  """z [B, Z] and labels -> w [B, Z], slice by slice.

  Attributes:
    names: Of the slices, in their order.
    sizes: Lengths of the slices; they add up to Z.
    hidden: Width of the layers in between.
    layers: Of each slice's network.
    classes: Number of labels; 0: none, as published.
    labelled: The slice whose network also reads the label.
    lr: Multiplier of the learning rate.
  """

  names: Sequence[str]
  sizes: Sequence[int]
  hidden: int = 256
  layers: int = 8
  classes: int = 0
  labelled: str = ""
  lr: float = 0.01

  @nn.compact
  def __call__(self, z: Array, y: Array | None = None) -> Array:
    if z.shape[-1] != sum(self.sizes):
      raise ValueError(
        f"slices of {' + '.join(map(str, self.sizes))} = {sum(self.sizes)} numbers of a z of "
        f"{z.shape[-1]}: make z_dim and w_dim their sum"
      )
    w, start = [], 0
    for name, size in zip(self.names, self.sizes, strict=True):
      own = unit(z[:, start : start + size])
      if self.classes and name == self.labelled:
        if y is None:
          raise ValueError("this net has labels: give it y")
        row = Dense(size, name="embed")(weights_of(y, self.classes))
        own = jnp.concatenate([own, unit(row)], -1)
      w.append(Stack(size, self.hidden, self.layers, self.lr, name=name)(own))
      start += size
    return jnp.concatenate(w, -1)


def split(
  names: Sequence[str],
  sizes: Sequence[int],
  hidden: int = 256,
  layers: int = 8,
  classes: int = 0,
  labelled: str = "",
) -> SplitMapping:
  """`SplitMapping`, as `nets.stylegan2.Generator` takes it for its `mapper`."""
  return SplitMapping(names, sizes, hidden, layers, classes, labelled)


class AttributeEncoder(nn.Module):
  """Values of attributes {name: [B, K]} -> slices of w, {name: [B, size]}.

  A network for each attribute (Shoshan et al. 2021, Sec. 3.2). There is no
  norm, so that they see how large values are.

  Attributes:
    names: Of the attributes.
    sizes: Lengths of their slices of w.
    hidden: Width of the layers in between.
    layers: Of each network.
    lr: Multiplier of the learning rate.
  """

  names: Sequence[str]
  sizes: Sequence[int]
  hidden: int = 512
  layers: int = 4
  lr: float = 0.01

  @nn.compact
  def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
    size = dict(zip(self.names, self.sizes, strict=True))
    stack = lambda name: Stack(size[name], self.hidden, self.layers, self.lr, name=name)
    # In an order of their own: parameters do not depend on who is asked first.
    return {name: stack(name)(values[name]) for name in self.names if name in values}
