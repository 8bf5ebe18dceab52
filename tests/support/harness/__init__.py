"""Run the library's CUDA sources on the CPU: compiled by g++, executed thread by thread.

    catalogue      every source that the library can request
    compiled       the kernels, compiled at the first request
    host_module    compiles sources together, and checks the arguments of each launch
    cuda_on_cpu    CUDA's keywords and functions (.h), the scheduler of blocks, warps, lanes (.cpp)
    memory         device memory: aligned, exactly as long as requested, full of NaN
    host_streams   streams and events, which run work as early or as late as is allowed
    host_products  matrix products, with the epilogues of cublasLt (epilogues)
    host_device    all of it as a device of `gpumlp.backends.cuda.protocol`
    on_device      a kernel on a real GPU with the same arguments
    comparing      tolerances and orders
    nvrtc          the compiler on users' machines: registers, spills, PTX

The harness cannot show the last bits of a GPU's elementary functions, errors of NVRTC itself, or
memory that other blocks see late (a missing __threadfence).  It makes one launch at a time, on
Linux.
"""
