"""The mixers that a config can name; a new one is its own module and a line here."""

from lssvwm_core.model.attention import CausalAttention, FrameAttention
from lssvwm_core.model.mamba import BlockScan
from lssvwm_core.model.mixer import Mixer

MIXERS: dict[str, type[Mixer]] = {
    "scan": BlockScan,
    "attention": FrameAttention,
    "causal": CausalAttention,
}
