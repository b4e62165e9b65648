"""How fast the kernels are on a GPU, as shares of what its memory can do and of what other kernels do."""
