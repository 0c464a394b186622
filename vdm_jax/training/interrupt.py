"""SIGTERM and Ctrl-C: finish the step, save, leave.

A second signal leaves at once, as if nothing were listening.  Orbax has a
handler too, but it works only under `jax.distributed`.
"""

import signal
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Hosts must agree on the step to stop at, which costs them a round trip.
_ASK_HOSTS_EVERY = 16


class Interrupt:
  """Context that turns the first signal into a request to stop."""

  def __init__(self):
    self._signal: int | None = None
    self._previous = {}

  def __enter__(self) -> 'Interrupt':
    for number in _SIGNALS:
      self._previous[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _on_signal(self, number: int, frame: FrameType | None) -> None:
    del frame
    self._signal = number
    for each in _SIGNALS:
      signal.signal(each, signal.SIG_DFL)

  def requested(self, step: int) -> bool:
    """Whether to stop after `step`: the same answer on every host."""
    stop = self._signal is not None
    if jax.process_count() == 1:
      return stop
    if step % _ASK_HOSTS_EVERY:
      return False
    return bool(multihost_utils.process_allgather(np.array(stop)).any())

  @property
  def name(self) -> str:
    """Name of the signal, e.g. 'SIGTERM'."""
    return signal.Signals(self._signal).name if self._signal else 'a host'
