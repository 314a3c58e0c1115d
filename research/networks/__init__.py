"""Networks shared by agents, GANs and supervised training."""
