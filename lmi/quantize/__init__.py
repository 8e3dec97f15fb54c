"""Making quantised checkpoints: calibration, recipes, and a report of what they cost."""
