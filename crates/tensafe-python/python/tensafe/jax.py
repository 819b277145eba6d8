"""safetensors for JAX: another name of ``tensafe.flax``."""

from .flax import load, load_file, save, save_file

__all__ = ["load", "load_file", "save", "save_file"]
