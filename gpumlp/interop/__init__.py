"""gpumlp beside other libraries: their arrays, modules and files."""
