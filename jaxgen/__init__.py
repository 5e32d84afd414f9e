"""jaxgen: diffusion models, GANs and VAEs, side by side, in JAX."""
