"""Imitation: demonstrations, rewards that a discriminator gives, and behaviour cloning."""
