"""Sparse coding: minimise ½‖y - Dz‖² + λ‖z‖₁ for many patches at once."""
