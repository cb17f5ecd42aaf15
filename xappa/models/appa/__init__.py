"""Appa: latent diffusion over global trajectories (Andry et al. 2025, arXiv:2504.18720)."""
