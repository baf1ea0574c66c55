"""CUDA graphs: hundreds of small kernels, recorded once and then launched as one.

A small model spends more time on launching its kernels from Python than the GPU on running them. A graph launches the
same kernels on the same memory every time, so what it reads is copied to a place of its own first, and what it wrote is
copied from there.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Function = Callable[[Mapping[str, Tensor]], Tensor]  # what else it reads, weights say, stays where it is in memory
Replay = Callable[[], None]
MOST_GRAPHS = 8  # that are kept: each has memory of its own


class Graphs:
    """Runs functions of tensors, from the second call for the same key and shapes on as a CUDA graph.

    Where recording fails, all goes on without graphs, and a warning says why. Every call is to be made in
    `torch.inference_mode()`; calls from several threads take turns.

    Args:
        record: as `record_graph`, which it is by default.
    """

    def __init__(self, record: "Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]] | None" = None) -> None:
        self._record = record or record_graph
        self._recorded: dict[Hashable, _Recorded | None] = {}  # None: called once; the latest used is the last
        self._lock = threading.Lock()
        self._works = True

    def __call__(self, key: Hashable, function: Function, tensors: Mapping[str, Tensor]) -> Tensor:
        """`function(tensors)`.

        Args:
            key: what tells the function from others; it is kept as long as the graph. What it holds stays in memory.
            tensors: all on the same CUDA device.
        """
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        with self._lock:
            if not self._works:
                return function(tensors)
            if (key, shapes) not in self._recorded:
                self._keep((key, shapes), None)
                return function(tensors)  # warms up, and raises what is wrong with it
            recorded = self._recorded.pop((key, shapes)) or self._recording(function, tensors)
            if recorded is None:
                return function(tensors)
            self._keep((key, shapes), recorded)
            return recorded(tensors)

    def _keep(self, key: Hashable, recorded: "_Recorded | None") -> None:
        self._recorded[key] = recorded
        while len(self._recorded) > MOST_GRAPHS:
            del self._recorded[next(iter(self._recorded))]

    def _recording(self, function: Function, tensors: Mapping[str, Tensor]) -> "_Recorded | None":
        try:
            inputs = {name: tensor.clone() for name, tensor in tensors.items()}
            return _Recorded(inputs, *self._record(lambda: function(inputs)))
        except Exception as error:  # whatever drivers and operators raise
            logger.warning("no CUDA graphs here, going on without: %s", str(error).partition("\n")[0])
            self._works = False
            self._recorded.clear()
            return None


class _Recorded:
    """A graph with the memory that it reads and writes."""

    def __init__(self, inputs: Mapping[str, Tensor], replay: Replay, output: Tensor) -> None:
        self.inputs, self.replay, self.output = inputs, replay, output

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor)
        self.replay()
        return self.output.clone()


def record_graph(function: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """The kernels of `function` on the current device as a graph: what runs it, and the tensor that it then fills."""
    torch.clear_autocast_cache()  # weights that were cast before would be read from where they no longer are
    with torch.cuda.stream(torch.cuda.current_stream()):  # it is this one again, whatever fails
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function()  # libraries take the memory that they need, which a graph cannot record
        torch.cuda.current_stream().wait_stream(side)
        torch.clear_autocast_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = function()
    torch.clear_autocast_cache()
    return graph.replay, output
