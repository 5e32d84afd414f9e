"""jaxgen: diffusion models, GANs and VAEs, side by side, in JAX."""


def __getattr__(name: str):
  # `jaxgen.load`, without importing jax for those who only want the data.
  if name == "load":
    from jaxgen.sampling.sampler import load

    return load
  raise AttributeError(f"module 'jaxgen' has no attribute {name!r}")
