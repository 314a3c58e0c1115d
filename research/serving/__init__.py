"""Web service of `sparring serve`: exported models behind TensorFlow Serving's REST contract.

It needs TensorFlow and aiohttp, and nothing used for training: no TF-Agents, no Hydra.
"""
