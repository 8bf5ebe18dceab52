"""The benchmark behind `gpumlp bench`: one training step, timed and compared with other libraries.

    cases         what is trained: widths, minibatch, functions, precision; its FLOPs and bytes
    peers         the competitors: this library, its floor, torch, JAX, scikit-learn, the user's own
    correct       the check before timing: every competitor must change the parameters alike
    worker        a competitor in a process of its own: first step, check, bursts of timed steps;
                  and processes that keep the cores busy
    timing        medians, quartiles, ratios round by round; a description of the machine
    results       the result of one competitor on one case, and its file
    case_runner   all competitors on all cases; a run that was cut short can be resumed
    figure        the ratios and a roofline

Each competitor has its own process, so it shares neither memory nor caches with another one, and a
crash ends it alone. The ratios are still sound: the rounds of a competitor alternate with rounds of
this library, whose process waits meanwhile. Other work on the machine slows both of them alike.
"""
