"""CUDA C++ sources, read by gpumlp.backends.cuda.source; a package so that every install finds them."""
