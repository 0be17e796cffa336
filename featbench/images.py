"""How featbench reads images: `featbench.images.read_image` is what every data set of files goes through."""

from featbench.data.image_reader import read_image

__all__ = ["read_image"]
