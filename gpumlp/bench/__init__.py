"""The benchmark behind `gpumlp bench`: a training step here, beside others and beside its floor.

    cases        what is trained: widths, minibatch, functions, precision; its FLOPs and bytes
    peers        who competes: this library, its floor, torch, JAX, scikit-learn; yours, by name
    worker       one competitor in a process of its own: first step, check, turns of timed steps
    processes    the other end of a worker's pipe
    correct      that all move the parameters alike, before anything is timed
    timing       medians, quartiles, ratios round by round; the machine
    lane         one case: our process, and beside it one competitor's after another
    run          the parts, one file each; a run can be cut off and go on
    results      what a part found, as a file
    report       the table; `pictures` draws them

Each competitor has a process to itself, so that memory, caches and a crash are its own.  Ratios are
sound all the same: its rounds alternate with rounds of this library, which lives in another process
and waits on a pipe meanwhile, so that the machine's other work and its clocks meet both alike.
"""
