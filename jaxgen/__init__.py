"""jaxgen: diffusion models, GANs and VAEs, side by side, in JAX.

For those who build on it, see sampling/README.md:

  m = jaxgen.load(W)           a trained model: m.sample, and its parts as functions
  jaxgen.run_sampler(D, x)     a sampler on any denoiser
  jaxgen.karras_sigmas(n)      noise levels for it
"""


def __getattr__(name: str):
  # Without importing jax for those who only want the data.
  if name == "load":
    from jaxgen.sampling.sampler import load

    return load
  if name in ("run_sampler", "karras_sigmas"):
    from jaxgen.sampling import any_denoiser

    return vars(any_denoiser)[name]
  raise AttributeError(f"module 'jaxgen' has no attribute {name!r}")
