"""Acting in a real environment by what a world remembers: places.py looks, agents.py acts, trial.py judges."""
