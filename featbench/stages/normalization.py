"""Local normalisation with a Gaussian window: N across maps (inside a stage), LCN of an image (before it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 9
"""Side of the window in pixels, unless an architecture names another."""

SIGMA = 1.591
"""Standard deviation in pixels of the 9×9 window (Kavukcuoglu, PhD thesis 2011, section 4.1)."""

TINY = 1e-12
"""Smallest variance: a blank image gives zeros instead of 0/0, and the root has a finite gradient."""

ROUNDING = 0.25
"""Smallest denominator, in units of sqrt(ε) times the image's root mean square.

A σ below it is rounding error, not contrast: σ² is a difference of numbers as large as the mean square, with an error
of ε times those. Dividing by such a σ would blow the error of a constant image up to features of size 1.
"""


def gaussian_window(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a [size, size] Gaussian window of sum 1, its σ in proportion to 1.591 for 9×9."""
    positions = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    sigma = SIGMA * size / WINDOW
    # exp(-(x² + y²)/2σ²) is a product of one factor for each side: the window is separable.
    profile = torch.exp(-(positions**2) / (2 * sigma**2))
    profile = profile / profile.sum()
    return torch.outer(profile, profile).to(dtype)


class LocalNormalisation(nn.Module):
    """N of Jarrett et al. 2009, section 3: subtractive, then divisive, over space and all maps at once.

    v = x - Σ w x;  σ = sqrt(Σ w v²);  y = v / max(c, σ), with c the mean of σ over each image.
    The window w sums to 1 over maps and space. The output has the size of the input: at the border the sums run over
    the pixels that exist and are divided by the weight of those, or with `zeros` are left as they are. The paper does
    not say which; Torch7 divides.

    Input and output: [n, maps, height, width].

    All maps share the mean and σ, so that only two small maps are ever blurred, and no normalised copy is squared. With
    μ = mean_k x_k, q = mean_k x_k² and w from here on the window over space alone, which sums to 1:

        m = w∗μ,   mean_k (x_k - m)² = q - 2mμ + m²,   σ² = w∗(q - 2mμ + m²)

    On maps without a large offset this equals the plain sums to 4e-7 in float32. An offset of 100 times the contrast
    costs 4e-4, by cancellation.
    """

    reentrant: ClassVar[bool] = True
    profile: Tensor

    def __init__(
        self, size: int = WINDOW, *, subtractive: bool = True, divisive: bool = True, zeros: bool = False
    ) -> None:
        super().__init__()
        positions = gaussian_window(size, torch.float64)
        self.size, self.subtractive, self.divisive, self.zeros = size, subtractive, divisive, zeros
        self.register_buffer("profile", positions.sum(dim=0), persistent=False)
        self.taps: list[float] = self.profile.tolist()
        # The weight of the pixels that exist, for each size of maps that came. Threads may compute an entry twice, and
        # find the same: the module stays re-entrant.
        self._weights: dict[tuple[torch.Size, torch.dtype, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x."""
        shift, scale = self.statistics(x.mean(dim=1, keepdim=True), x.square().mean(dim=1, keepdim=True))
        centred = x if shift is None else x - shift
        return centred if scale is None else centred / scale

    def statistics(self, mean: Tensor, mean_square: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the shift m and the scale max(c, σ), [n, 1, height, width] each, or None where there is none.

        mean, mean_square [n, 1, height, width]: μ and q, those of x over all maps.
        """
        local_mean = self._blur(mean) if self.subtractive else None
        if not self.divisive:
            return local_mean, None
        spread = mean_square
        if local_mean is not None:
            # q + m (m - 2μ), in one operation and one subtraction. Rounding may leave it below zero.
            spread = torch.addcmul(mean_square, local_mean, torch.sub(local_mean, mean, alpha=2)).clamp_min(0)
        variance = self._blur(spread)
        deviation = variance.clamp_min(TINY).sqrt()
        threshold = deviation.mean(dim=(2, 3), keepdim=True)
        # A constant for the gradient, as a bound against rounding error should be.
        energy = mean_square.detach().mean(dim=(2, 3), keepdim=True)
        noise = (ROUNDING**2 * torch.finfo(mean.dtype).eps * energy).sqrt()
        return local_mean, torch.maximum(torch.maximum(threshold, noise), deviation)

    def _blur(self, x: Tensor) -> Tensor:
        """Return the Gaussian mean of a [n, 1, height, width] tensor."""
        return self._window_sum(x) if self.zeros else self._window_sum(x) / self.border_weight(x)

    def border_weight(self, x: Tensor) -> Tensor:
        """Return what sums over the window are divided by, [1, 1, height, width], for maps x [n, 1, height, width]."""
        like = x.shape[2:], x.dtype, x.device
        if like not in self._weights:
            ones = torch.ones_like(x[:1], requires_grad=False)
            self._weights[like] = ones if self.zeros else self._window_sum(ones)
        return self._weights[like]

    def _window_sum(self, x: Tensor) -> Tensor:
        margin = self.size // 2
        return smooth(functional.pad(x, (margin, margin, margin, margin)), self.taps)


def smooth(x: Tensor, taps: Sequence[float]) -> Tensor:
    """Correlate [..., height, width] with a separable, symmetric window of odd size, valid region only."""
    # Shifted views are added up, by columns and then by rows, instead of a convolution: torch convolves a single map by
    # other code in a batch than alone, so that an image's last digits depended on the images beside it, and takes 20
    # times as long. Only additions and products are left, in the same order for each pixel.
    margin = len(taps) // 2
    height, width = (side - 2 * margin for side in x.shape[-2:])
    x = _weigh(x.unfold(-1, width, 1).unbind(-2), taps)
    return _weigh(x.unfold(-2, height, 1).mT.unbind(-3), taps)


def _weigh(shifted: Sequence[Tensor], taps: Sequence[float]) -> Tensor:
    """Return the sum of shifted copies, weighted by a symmetric window."""
    # A symmetric pair is added first: half of the products.
    margin = len(taps) // 2
    total = taps[margin] * shifted[margin]
    for away in range(1, margin + 1):
        total = torch.add(total, shifted[margin - away] + shifted[margin + away], alpha=taps[margin + away])
    return total


def local_contrast_normalise(x: Tensor, constant: float = 1.0, size: int = WINDOW) -> Tensor:
    """Local contrast normalisation (LCN) of images: y = (x - w∗x) / max(constant, sqrt(w∗x² - (w∗x)²)).

    Input [n, maps, height, width], each map normalised by itself; output smaller by `size - 1` in both directions, the
    valid region. Source: Jarrett et al. 2009, section 4, in the form of Torch7's `image.lcn` (one grey map).
    """
    taps = gaussian_window(size, torch.float64).sum(dim=0).tolist()
    mean = smooth(x, taps)
    # Clamped before the root, whose gradient at zero is infinite.
    deviation = (smooth(x.square(), taps) - mean.square()).clamp_min(max(constant**2, TINY)).sqrt()
    margin = size // 2
    inner = x[:, :, margin : x.shape[2] - margin, margin : x.shape[3] - margin]
    return (inner - mean) / deviation
