"""Networks."""

from jaxgen.nets import tpu_sums  # noqa: F401  (how sums are lowered for TPUs, of every net)
