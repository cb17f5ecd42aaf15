"""Networks. Tensors only: nothing here knows of xarray, units or grids."""
