"""XLA's flags for processes of their own, which keep those of the tests."""

import os


def devices(n: int) -> str:
  """A value for XLA_FLAGS: of `n` devices, compiled as here."""
  return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n}"
