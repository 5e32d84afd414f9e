"""Sources of examples and the order they come in. Never imports jax."""
