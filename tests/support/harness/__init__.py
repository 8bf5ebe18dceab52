"""Runs the library's CUDA sources on the CPU: compiled by g++, executed thread by thread.

    catalogue      every source that the library can ask for
    library        the kernels, compiled when first asked for
    host_module    compiles sources together, and checks the arguments of each launch
    cuda_on_cpu    the language's words (.h) and the scheduler of blocks, warps and lanes (.cpp)
    memory         device memory: aligned, exactly as long as asked, full of NaN
    host_device    all of it as the device behind the CUDA backend's seam
    comparing      tolerances and orders
    nvrtc          the compiler that users run: registers, spills, PTX

What it cannot show: the last bits of a GPU's elementary functions, NVRTC's own mistakes, and memory
that other blocks see late (a missing __threadfence).  One launch at a time, on Linux.
"""
