"""Lets torch's threads end before Python does; on the path of every program of the integration tests.

A thread of torch's gloo drops a collective's tensors some time after the collective is done, and needs the
interpreter for it. Where the interpreter is ending by then, CPython ends the thread, C++ cannot unwind it, and the
process aborts ("terminate called without an active exception"), its work done. It is torch's fault: two ranks that
gather an object three times and end, with no tensafe in them, abort in 26 of 60 runs (torch 2.15.0, Python 3.11;
pytorch/pytorch#179291 describes it). A pause before the end, without the interpreter's lock, is enough.
"""

import atexit
import sys
import time

# Seconds; what the threads need is one turn on a busy processor.
PAUSE = 0.5


def _pause() -> None:
    if "torch.distributed" in sys.modules:
        time.sleep(PAUSE)


atexit.register(_pause)
