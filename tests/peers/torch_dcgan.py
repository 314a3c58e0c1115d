"""PyTorch's side of a GAN benchmark: `python torch_dcgan.py dcgan '{"width": 16, ...}' steps
threads` prints images/s.

The DCGAN of gans/networks/layers.py in eager PyTorch: 32x32x3, batch normalisation in the generator
only, the same widths, non-saturating loss, Adam, one step of either player per batch on the same
generated images; `penalty` is null, "r1" or "wgan_gp". `steps` are real images. Run with the
interpreter that `make peers` sets up.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


def generator(latent: int, width: int) -> nn.Module:
    """Latents [B, Z] -> images [B, 3, 32, 32]."""
    widths = [4 * width, 2 * width, width]
    layers: list[nn.Module] = [
        nn.Linear(latent, 16 * widths[0]),
        nn.Unflatten(1, (widths[0], 4, 4)),
    ]
    for here, there in zip(widths, [*widths[1:], 3], strict=True):
        layers += [nn.BatchNorm2d(here), nn.ReLU(), nn.ConvTranspose2d(here, there, 4, 2, 1)]
    return nn.Sequential(*layers, nn.Tanh())


def discriminator(width: int) -> nn.Module:
    """Images [B, 3, 32, 32] -> logits [B]."""
    layers: list[nn.Module] = []
    for here, there in zip([3, width, 2 * width], [width, 2 * width, 4 * width], strict=True):
        layers += [nn.Conv2d(here, there, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4 * width, 1), nn.Flatten(0))


def penalty(
    kind: str | None, critic: nn.Module, real: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor | float:
    """R1 with gamma 1, or WGAN-GP with weight 10; zero for None."""
    if kind is None:
        return 0.0
    share = torch.rand(len(real), 1, 1, 1)
    at = (real if kind == "r1" else real + share * (fake - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
    square = slope.square().sum(dim=(1, 2, 3))
    return (
        0.5 * square.mean()
        if kind == "r1"
        else 10.0 * ((square + 1e-10).sqrt() - 1.0).square().mean()
    )


def main() -> None:
    settings = json.loads(sys.argv[2])
    steps = int(sys.argv[3])
    threads = int(sys.argv[4])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batch = settings["batch_size"]
    width = settings["width"]
    kind = settings["penalty"]
    g = generator(100, width)
    d = discriminator(width)
    players = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (g, d)]
    data = torch.rand(4096, 3, 32, 32) * 2 - 1

    def step() -> None:
        real = data[torch.randint(len(data), (batch,))]
        fake = g(torch.randn(batch, 100))
        loss = (functional.softplus(-d(real)) + functional.softplus(d(fake.detach()))).mean()
        players[1].zero_grad(set_to_none=True)
        (loss + penalty(kind, d, real, fake)).backward()
        players[1].step()
        players[0].zero_grad(set_to_none=True)
        functional.softplus(-d(fake)).mean().backward()
        players[0].step()

    for _ in range(20):
        step()
    started = time.perf_counter()
    count = max(steps // batch, 1)
    for _ in range(count):
        step()
    print(
        json.dumps(
            {
                "steps_per_second": count * batch / (time.perf_counter() - started),
                "threads": threads,
            }
        )
    )


main()
