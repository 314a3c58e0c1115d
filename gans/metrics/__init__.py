"""Metrics of generated examples; every score states how it was computed."""
