"""The latents that the second stage learns from: encoded once, kept in memory or in a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xappa.nn.autoencoder import ConvAutoencoder
from xappa.training.checkpoint import load_arrays, save_arrays
from xappa.training.config import AppaTraining
from xappa.training.data import Series, TrainingData, allowed
from xappa.training.loop import Run

__all__ = ["Latents", "encoded"]

#: States that are encoded together: a fixed number, so that latents are the same wherever they are.
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of the states to learn from, and of those that were set aside.

    Parameters
    ----------
    train, held
        Not standardised, shapes (B, T, L), float32, flat in the order (row, column, channel).
    mean, std
        Of each channel over the former, shape (c,); the latter with the noise of training.
    """

    train: np.ndarray
    held: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Standardise latents (..., L), float32."""
        scaled = (values.reshape(-1, len(self.mean)) - self.mean) / self.std
        result: np.ndarray = scaled.astype(np.float32).reshape(values.shape)
        return result


def encoded(module: ConvAutoencoder, data: TrainingData, run: Run[AppaTraining]) -> Latents:
    """Encode all states, block by block; processes share the blocks.

    Parameters
    ----------
    module
        The trained autoencoder.
    data
        The states.
    run
        Settings, folder and processes. Latents that exceed the memory are kept in the folder.

    Raises
    ------
    CheckpointError
        If they cannot be written.
    """
    train = _Encoder(module, data, run).encode(data.train, "latents")
    same = data.held is data.train
    held = train if same else _Encoder(module, data, run).encode(data.held, "latents-held")
    channels = module.config.lat_channels
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for part in np.array_split(train.reshape(-1, channels), max(1, train.nbytes // 2**26)):
        total += part.sum(0, dtype=np.float64)
        count += len(part)
    mean = total / count
    for part in np.array_split(train.reshape(-1, channels), max(1, train.nbytes // 2**26)):
        squares += ((part - mean) ** 2).sum(0)
    return Latents(train, held, mean, np.sqrt(squares / count + run.config.latent_noise**2))


class _Encoder:
    """Encode the states of a series."""

    def __init__(self, module: ConvAutoencoder, data: TrainingData, run: Run[AppaTraining]) -> None:
        self.module, self.data, self.run = module, data, run

    def encode(self, series: Series, name: str) -> np.ndarray:
        """Return the latents of a series, shape (B, T, L), kept under a name."""
        size = int(np.prod(self.module.config.latent_shape))
        shape = (series.states.shape[0], series.times, size)
        together, folder = self.run.processes, self.run.folder
        if folder is None or 4 * np.prod(shape) <= allowed(self.run.config.memory, together.size):
            values = np.zeros(shape, np.float32)
            self._fill(values, series)
            together.add(torch.from_numpy(values))
            return values
        return self._on_disk(folder / f"{name}.npy", series, shape)

    def _on_disk(self, path: Path, series: Series, shape: tuple[int, ...]) -> np.ndarray:
        together = self.run.processes
        identity = {"weights": _digest(self.module), **self.run.identity}
        done = path.with_suffix(".npz")
        whole = load_arrays(done, identity) is not None and path.is_file()
        if not together.from_first(whole if together.first else None):
            if together.first:
                done.unlink(missing_ok=True)
                np.lib.format.open_memmap(path, "w+", np.float32, shape).flush()
            together.wait()
            values = np.lib.format.open_memmap(path, "r+")
            self._fill(values, series)
            values.flush()
            together.wait()
            if together.first:
                save_arrays(done, identity, {})
        together.wait()
        return np.lib.format.open_memmap(path, "r")

    @torch.no_grad()
    def _fill(self, values: np.ndarray, series: Series) -> None:
        """Encode this process's share of the blocks."""
        together = self.run.processes
        for number, times in enumerate(series.blocks()):
            if number % together.size != together.rank:
                continue
            for member, states in enumerate(series.block(times)):
                scaled = torch.from_numpy(self.data.standardised(states))
                parts = [
                    self.module.encode(part.to(together.device)).movedim(1, -1).flatten(1).cpu()
                    for part in scaled.split(_ROWS)
                ]
                values[member, times] = torch.cat(parts).numpy()


def _digest(module: ConvAutoencoder) -> str:
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
