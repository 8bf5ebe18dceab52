"""Whether time grows in proportion to the amount of work."""

import math
import time


def slowdown(prepared, small, large, most):
    """Processor time of each item among `large` items, divided by that among `small` items.

    Other processes disturb even processor time.  So the least time counts, and a slowdown of `most`
    or more is measured again, in up to five rounds.

    prepared: prepared(n) makes the data of n items, and returns the function to time.
    """
    runs = {n: prepared(n) for n in (small, large)}
    least = dict.fromkeys(runs, math.inf)
    for _ in range(5):
        for n, run in runs.items():
            start = time.process_time()
            run()
            least[n] = min(least[n], time.process_time() - start)
        found = least[large] * small / (least[small] * large)
        if found < most:
            break
    return found
