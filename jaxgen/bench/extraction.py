"""The network that FID looks through, timed from bytes to features.

Its weights are drawn at random: a network is as fast with any, and no file is
needed.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bench import device
from jaxgen.bench.device import Progress
from jaxgen.bench.sampling import random_arrays
from jaxgen.evaluation import features
from jaxgen.evaluation.features import Extractor
from jaxgen.evaluation.protocols import Protocol
from jaxgen.evaluation.weights import Weights
from jaxgen.nets import inception


def untrained(resize: str, batch: int | None = None) -> Extractor:
  """FID's Inception with random weights."""
  x = jax.ShapeDtypeStruct((1, inception.SIZE, inception.SIZE, 3), jnp.float32)
  variables = jax.eval_shape(inception.Inception().init, jax.random.key(0), x)
  weights = Weights(random_arrays(variables["params"]), "0" * 64, "none", published=False)
  return features.inception(weights, resize, batch)


def extraction_speed(
  protocol: Protocol, size: int, batch: int | None, seconds: float, progress: Progress
) -> dict[str, Any]:
  """How fast images become features, and how long an evaluation takes of it.

  Args:
    protocol: Whose resize and layer are used.
    size: Height and width of the images.
    batch: Images at once; None: as in an evaluation.
    seconds: Of each measurement, about.
    progress: Called with what is done.

  Several processes look at as many images each, at once: numbers are of all of
  them but for batch, batch_seconds and network_seconds.

  Returns: images_per_s from bytes in memory to features on the host, from the
    median of batch_seconds; flops of an image; network_seconds, a batch of the
    network alone at best; achieved operations/s, peaks and shares of them.
  """
  extractor = untrained(protocol.resize, batch)
  batch, tap = extractor.batch, (protocol.layer,)
  images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
  x = extractor.enter(images)
  network = jax.jit(lambda params, x: extractor.apply(params, x, tap))

  progress("compiling the network")
  stream = extractor.stream(itertools.repeat(images), tap)  # without end: in steady state
  times = device.time_calls(lambda: next(stream), seconds=seconds)
  stream.close()
  progress("timing the network alone")
  alone = min(device.time_calls(lambda: extractor.look(x, tap), seconds=seconds))
  flops = device.flops(network, extractor.params, x)
  progress("measuring the peak of matrix products")
  median, together = float(np.median(times)), jax.process_count()  # each has images of its own
  result = {
    "protocol": protocol.name,
    "network": extractor.card["network"],
    "size": size,
    "batch": batch,
    "batches": len(times),
    "batch_seconds": device.median_min_max(times),
    "images_per_s": together * batch / median,
    "images": protocol.images,
    "evaluation_seconds": protocol.images * median / batch / together,
    "network_seconds": alone,
    "flops_per_image": flops / batch,
    "flops_per_s": together * flops / median,
    "bytes_in_use": device.memory_in_use(),
    "peak": device.peaks(device.matmul_dtype(network, extractor.params, x)),
  }
  return result | device.shares_of_peak(result, result["peak"])
