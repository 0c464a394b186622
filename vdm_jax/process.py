"""Settings of a process before it computes: its job's hosts, and the cache."""

import os
import pathlib

import jax


def set_up(
  *,
  distributed: bool,
  coordinator: str | None,
  num_hosts: int | None,
  host: int | None,
) -> None:
  """Joins the other hosts, if there are any; keeps what is compiled.

  Args:
    distributed: whether there are other hosts.
    coordinator: ADDRESS:PORT of the first one; None where the machines say it.
    num_hosts: how many there are, likewise.
    host: which one this is, likewise.
  """
  if distributed:
    jax.distributed.initialize(
      coordinator_address=coordinator,
      num_processes=num_hosts,
      process_id=host,
    )
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    cache = pathlib.Path('~/.cache/vdm_jax/compilation').expanduser()
    jax.config.update('jax_compilation_cache_dir', str(cache))
