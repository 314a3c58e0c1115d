"""Generative adversarial networks: losses, penalties, networks, metrics and their trainer."""
