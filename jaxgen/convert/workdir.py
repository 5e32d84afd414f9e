"""Other people's weights into a workdir of ours, and ours out of it.

GANs, codecs, priors of codes, U-Nets, transformers, EDM2, models of latents and
those of sound differ in what their files hold: `gan_workdir`, `codec_workdir`,
`prior_workdir`, `net_workdir`, `dit_workdir`, `edm2_workdir`, `latent_workdir`,
`diffwave_workdir`, `hifigan_workdir`, `ddgan_workdir` and `translator_workdir` have the
same functions for them, `open_file` and `tensors`.
"""

import datetime
import os
import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jaxgen import config as configs
from jaxgen import core
from jaxgen.checkpoint import disk, lock, step_folder
from jaxgen.checkpoint.meta import latest, settings
from jaxgen.convert import (
  codec_workdir,
  ddgan_workdir,
  diffwave_workdir,
  dit_workdir,
  edm2_workdir,
  gan_workdir,
  hifigan_workdir,
  latent_workdir,
  net_workdir,
  prior_workdir,
  translator_workdir,
)
from jaxgen.convert.initial_state import ForeignFile, initial_state
from jaxgen.convert.published import NOTHING, Facts
from jaxgen.errors import UserError, nearest
from jaxgen.experiment import describe
from jaxgen.interop import names, tensor_files
from jaxgen.interop.autoencoder_names import CODECS
from jaxgen.interop.ddgan_names import DENOISING
from jaxgen.interop.diffwave_names import WAVES
from jaxgen.interop.dit_names import TRANSFORMERS
from jaxgen.interop.gans import GANS
from jaxgen.interop.hifigan_names import VOCODERS
from jaxgen.interop.pixelsnail_names import PRIORS
from jaxgen.interop.translator_names import TRANSLATORS
from jaxgen.interop.unet_names import SOURCES

ALL = SOURCES | GANS | CODECS | TRANSFORMERS | PRIORS | WAVES | VOCODERS | DENOISING
ALL |= edm2_workdir.FILES | TRANSLATORS
# What a pipeline of diffusers calls the folder of such a model.
PARTS = {codec_workdir: "vae", dit_workdir: "transformer"}


def import_weights(
  checkpoint: str,
  workdir: str,
  source: str,
  config: ConfigDict | None = None,
  *,
  key: str | None = None,
  size: int = 0,
  licence: str = "",
  disc: str | None = None,
  bottom: str | None = None,
  back: str | None = None,
  facts: Facts = NOTHING,
  progress: Callable[[int, int], None] = lambda n, total: None,
  log: Callable[[str], None] = lambda line: None,
) -> None:
  """Makes step 0 of a workdir of somebody's checkpoint.

  The weights and all their averages are those of the file; the optimiser has
  not begun. From then on it is a workdir like any other.

  Args:
    checkpoint: The file, or a folder as diffusers saves it.
    workdir: Holds no checkpoints yet.
    source: A key of ALL.
    config: Of the experiment; None: what the file tells, and what is usual.
    key: See interop.tensor_files.read; of GANs all sets are taken.
    size: Height of the images, where the config does not say.
    licence: A note that stays with the weights.
    disc: The file of a GAN's discriminator, where it is another.
    bottom: The file of a prior's bottom level; `checkpoint` is the top's.
    back: The file of CycleGAN's other generator; `checkpoint` is G_A.
    facts: What files of U-Nets do not tell.
    progress: Called after each weight with its number, and that of all.
    log: Called with a line on what was assumed.
  """
  check_source(source)
  check_new(workdir)
  if config is not None:
    configs.check_single(config, "import")
    config = config.copy_and_resolve_references()
    facts.apply(config)
  module = module_for(config, source)
  if module is not prior_workdir:
    if bottom:
      raise UserError("--bottom is of a prior of two levels: leave it")
    checkpoint = in_folder(checkpoint, PARTS.get(module, "unet"))
  if back and module is not translator_workdir:
    raise UserError("--back is of CycleGAN, whose generators are two files: leave it")
  file = ForeignFile(checkpoint, source, key, size, disc, facts, progress, log, bottom, back)
  imported = module.open_file(file, config)
  config = imported.experiment.config
  meta = describe(config, imported.data) | {"import": provenance(file, licence)}
  save_first(workdir, initial_state(imported), meta, config.checkpoint, log)


def in_folder(checkpoint: str, part: str) -> str:
  """The file of weights in diffusers' folder of a model, or of a pipeline of several."""
  folder = pathlib.Path(checkpoint)
  if not folder.is_dir():
    return checkpoint
  names = [f"diffusion_pytorch_model{end}" for end in (".safetensors", ".bin")]
  for path in [place / name for place in (folder, folder / part) for name in names]:
    if path.is_file():
      return str(path)
  raise UserError(f"{checkpoint} is a folder without {names[0]}, and without {part}/{names[0]}")


def module_for(config: ConfigDict | None, source: str) -> ModuleType:
  """Which of these modules reads and writes files for a config."""
  if source in PRIORS or config is not None and prior_workdir.is_prior(config):
    return prior_workdir
  if source in TRANSFORMERS or config is not None and dit_workdir.is_transformer(config):
    return dit_workdir
  if source in edm2_workdir.FILES or config is not None and edm2_workdir.is_edm2(config):
    return edm2_workdir
  if source in WAVES or config is not None and diffwave_workdir.is_wave(config):
    return diffwave_workdir
  if source in VOCODERS or config is not None and config.model.name in VOCODERS.values():
    return hifigan_workdir
  if source in DENOISING or config is not None and config.model.name in DENOISING.values():
    return ddgan_workdir
  if source in TRANSLATORS or config is not None and config.model.name in TRANSLATORS.values():
    return translator_workdir
  if config is None:
    return net_workdir
  if config.model.name == latent_workdir.LATENT:
    return latent_workdir
  if config.model.name in {how.model for how in CODECS.values()}:
    return codec_workdir
  return gan_workdir if "gen" in config.model else net_workdir


def provenance(file: ForeignFile, licence: str) -> dict[str, Any]:
  """Where weights come from, as a checkpoint keeps it."""
  return {
    "source": file.source,
    "file": pathlib.Path(file.path).name,
    "key": file.key,
    "sha256": tensor_files.sha256(file.path),
    "licence": licence,
    **({"disc": tensor_files.sha256(file.disc)} if file.disc else {}),
    **({"back": tensor_files.sha256(file.back)} if file.back else {}),
    **({"bottom": tensor_files.sha256(file.bottom)} if file.bottom else {}),
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
  }


def save_first(
  workdir: str, state: core.State, meta: dict[str, Any], c: ConfigDict, log: Callable[[str], None]
) -> None:
  """Saves step 0, while nobody else writes to the workdir."""
  from jaxgen.checkpoint.manager import Checkpoints  # Orbax takes seconds to import

  with (
    lock.exclusive(workdir),
    Checkpoints(
      workdir,
      every=c.every,
      keep=c.keep,
      keep_every=c.keep_every or None,
      log=log,
      gigabytes=1,  # nobody waits to train on
    ) as checkpoints,
  ):
    check_new(workdir)
    checkpoints.save(0, state, meta, force=True)


def check_new(workdir: str) -> None:
  """UserError if a workdir holds checkpoints."""
  if steps := step_folder.present(disk.folder(workdir)):
    raise UserError(
      f"{workdir} holds checkpoints already, up to step {steps[-1]}: take a new --workdir"
    )


def check_source(source: str) -> None:
  """UserError for an unknown one."""
  if source not in ALL:
    raise UserError(f"there is no source {source!r}" + nearest(source, ALL))


def export_weights(
  workdir: str,
  out: str,
  source: str | None = None,
  *,
  ema: str | None = None,
  step: int | None = None,
  disc: str | None = None,
  bottom: str | None = None,
  back: str | None = None,
) -> dict[str, Any]:
  """Writes a workdir's weights as a checkpoint of somebody else's code.

  Args:
    workdir: Of the training, or of an import.
    out: Name of the file, .pt or .safetensors.
    source: A key of ALL; None: where they were imported from.
    ema: See sampler.load.
    step: Likewise.
    disc: Name of a file for a GAN's discriminator, where that is another.
    bottom: Name of a file for a prior's bottom level, beside `out` for the top.
    back: Name of a file for CycleGAN's other generator, beside `out` for G_A.

  Returns:
    {"step", "tensors": their number, "import": provenance or {}, "ema"}.
  """
  meta = latest(workdir)
  config, origin = settings(meta), meta.get("import") or {}
  if source is None and not origin:
    raise UserError("export needs --source, one of " + ", ".join(ALL))
  source = source or origin["source"]
  check_source(source)
  module = module_for(config, source)
  for path in filter(None, (out, disc, bottom, back)):
    tensor_files.kind_of(path)
  if disc:
    if module not in (gan_workdir, hifigan_workdir, ddgan_workdir, translator_workdir):
      raise UserError(f"--disc is a GAN's, and {workdir} holds a {config.model.name}")
    if module is gan_workdir:
      gan_workdir.check_disc(source, "--disc")
  if module is translator_workdir and (disc if source == "cyclegan" else back):
    raise UserError("--back is CycleGAN's other generator, and --disc pix2pix' discriminator")
  if back and module is not translator_workdir:
    raise UserError(f"--back is of CycleGAN, and {workdir} holds a {config.model.name}")
  if bottom and os.path.realpath(bottom) == os.path.realpath(out):
    raise UserError(f"--out and --bottom are both {out}: each level has a file of its own")
  if bool(bottom) != (module is prior_workdir):
    raise UserError(
      f"--bottom is of a prior of two levels, and {workdir} holds a {config.model.name}"
      if bottom
      else "a prior has a file for each level: --out=top.pt and --bottom=bottom.pt"
    )
  trained, tensors = module.tensors(workdir, source, config, ema, step)
  tensors = write_files(module, source, tensors, out, disc or back, bottom)
  return {
    "step": trained.step,
    "tensors": len(names.flat(tensors)),
    "import": origin,
    "ema": trained.card["ema"],
  }


def write_files(
  module: ModuleType,
  source: str,
  tensors: dict[str, Any],
  out: str,
  disc: str | None,
  bottom: str | None,
) -> dict[str, Any]:
  """Writes the files of an export -> all tensors, but for a GAN's discriminator."""
  second = {}
  if module is gan_workdir and gan_workdir.apart(source):
    second, tensors = tensors.get("disc", {}), tensors[""]
  elif module in (hifigan_workdir, ddgan_workdir, translator_workdir):
    tensors, second = module.packed(tensors, out)
  elif module in (latent_workdir, diffwave_workdir):
    tensors = module.packed(tensors, out)
  elif bottom:
    tensor_files.write(bottom, tensors["bottom"])
    tensor_files.write(out, tensors["top"])
    return tensors
  if disc:
    tensor_files.write(disc, second)
  tensor_files.write(out, tensors)
  return tensors
