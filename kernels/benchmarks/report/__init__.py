"""What the compiler makes of the kernels, seen without a GPU: registers, shared memory, spills and instructions."""
