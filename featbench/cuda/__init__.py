"""Triton kernels, CUDA graphs, streams and the upload of images: what runs on a GPU alone."""
