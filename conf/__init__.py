"""Hydra's configs: one primary per kind of training, groups, and experiment presets."""
