"""Worlds as gymnasium environments (extra `gym`).

    import gymnasium

    env = gymnasium.make("lssvwm_core.gym:lssvwm/World-v0", world="maze-world")
    envs = gymnasium.make_vec("lssvwm_core.gym:lssvwm/World-v0", num_envs=16, world="maze-world")

spaces.py: what an agent sees and does · reward.py: what it gets for it · imagination.py: N worlds, a step in one pass
env.py: `WorldEnv` and `WorldVectorEnv`
"""

from lssvwm_datasets.errors import LssvwmError

try:
    import gymnasium
except ImportError as error:
    raise LssvwmError(f"gymnasium is not installed ({error}); install it with: pip install 'lssvwm[gym]'") from error

from lssvwm_core.gym.env import WorldEnv, WorldVectorEnv
from lssvwm_core.gym.imagination import Moment
from lssvwm_core.gym.reward import Imagined, Reward, load_reward

__all__ = ["Imagined", "Moment", "Reward", "WorldEnv", "WorldVectorEnv", "load_reward"]

gymnasium.register(
    id="lssvwm/World-v0",
    entry_point="lssvwm_core.gym.env:WorldEnv",
    vector_entry_point="lssvwm_core.gym.env:WorldVectorEnv",
)
