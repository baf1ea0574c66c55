"""How the columns of actions are normalised: by what `lssvwm prepare` measured on the recordings."""

from lssvwm_datasets.index import Statistics, read_index
from lssvwm_datasets.shards import ShardSet

ActionScaling = tuple[tuple[float, float], ...]


def action_scaling(shards: ShardSet) -> ActionScaling:
    """(mean, standard deviation) of each action column by the index; 0 and 1 for those that are 0 or 1 anyway."""
    statistics = read_index(shards.folder).action_statistics
    if not statistics:
        return ()
    rows = [statistics.get(name, Statistics(0.0, 1.0)) for name in shards.header.action_names]
    return tuple((row.mean, row.std or 1.0) for row in rows)
