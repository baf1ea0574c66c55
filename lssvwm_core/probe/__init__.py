"""What does a memory know? reads.py asks it at poses, examples.py gathers, map_probe.py learns, report.py tells."""
