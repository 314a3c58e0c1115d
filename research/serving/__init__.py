"""The web service of `sparring serve`: exported models behind TensorFlow Serving's REST contract.

Needs TensorFlow and aiohttp, and nothing of what trains: no TF-Agents, no Hydra.
"""
