"""Models: priors with their statistics and the contract of their grid, kept as bundles."""
