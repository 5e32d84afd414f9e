"""jaxgen: diffusion models, GANs and VAEs, side by side, in JAX.

For those who build on it, see sampling/README.md:

  m = jaxgen.load(W)           a trained model: m.sample, and its parts as functions
  jaxgen.run_sampler(D, x)     a sampler on any denoiser
  jaxgen.karras_sigmas(n)      noise levels for it
"""

NAMES = {"load": "sampler", "run_sampler": "any_denoiser", "karras_sigmas": "any_denoiser"}


def __getattr__(name: str):
  # Without importing jax for those who only want the data.
  if name in NAMES:
    import importlib

    return getattr(importlib.import_module(f"jaxgen.sampling.{NAMES[name]}"), name)
  raise AttributeError(f"module 'jaxgen' has no attribute {name!r}")
