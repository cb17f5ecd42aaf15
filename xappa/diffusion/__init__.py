"""What azula lacks: trajectories, guidance that serves each member alone, keyed randomness.

Works on arrays only and never imports xarray.
"""
