"""Networks, optimizer and metric of a GAN that is given none."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sparring.data.dataset import Data
from sparring.gans.metrics.sliced_wasserstein import SlicedWasserstein
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.mlp import MLPDiscriminator, MLPGenerator
from sparring.gans.networks.pair import Pair
from sparring.optim import optimizer as optim_optimizer

METRICS: Mapping[str, Callable[..., Any]] = {"swd": SlicedWasserstein}


def pair(data: Data) -> Pair:
    """Return a DCGAN for images; for vectors, two dense networks of 128-128 units."""
    if len(data.shape) == 3:
        return Pair(DCGANGenerator, DCGANDiscriminator, latent=100)
    features = math.prod(data.shape)
    return Pair(MLPGenerator, partial(MLPDiscriminator, slope=0.2), min(max(features, 2), 64))


def optimizer() -> optim_optimizer.Scheduled:
    """Return Adam without momentum at 2e-4, as GANs with penalties are trained (Karras et al.
    2020).
    """
    return optim_optimizer.adam(2e-4, beta_1=0.0, beta_2=0.99, epsilon=1e-8)
