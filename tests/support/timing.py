"""Whether time grows in proportion to the amount of work."""

import time


def slowdown(prepared, small, large):
    """Processor time of each item among `large` items, divided by that among `small` items.

    prepared: prepared(n) makes the data of n items, and returns the function to time.
    """
    least = []
    for n in (small, large):
        run, seconds = prepared(n), []
        for _ in range(2):  # other processes disturb even processor time, so the minimum counts
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        least.append(min(seconds))
    return least[1] * small / (least[0] * large)
