"""``--load-format tensafe`` for vLLM: the plugin that its processes find by the entry point of our wheel.

Nothing to import: where tensafe is installed beside vLLM, ``vllm serve MODEL --load-format tensafe`` and
``LLM(MODEL, load_format="tensafe")`` load through tensafe. ``model_loader_extra_config`` may hold the
options that :class:`tensafe.integrations._vllm_loader.Options` lists.
"""

from __future__ import annotations

import logging

_registered = False


def register() -> None:
    """Makes the load format known to the vLLM of this process. Called by vLLM, in each of its processes.

    Does nothing where vLLM has no registry of loaders: there the load format stays unknown, which is
    what vLLM then says. Safe to call again. Costs an import of vLLM's loaders, nothing is opened.
    """
    global _registered
    if _registered:
        return
    try:
        from vllm.model_executor.model_loader import register_model_loader

        from ._vllm_loader import TensafeModelLoader
    except ImportError as error:
        logging.getLogger(__name__).debug("load format tensafe is not registered: %s", error)
        return
    register_model_loader("tensafe")(TensafeModelLoader)
    _registered = True
