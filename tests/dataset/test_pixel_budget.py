"""Pixels in flight: within the budget but for one picture alone; no thread waits for itself."""

import threading
from concurrent.futures import ThreadPoolExecutor

from dataset.pixel_budget import PixelBudget


def test_threads_stay_within_the_budget():
    budget, lock = PixelBudget(100), threading.Lock()
    now, most = 0, 0

    def work(pixels: int) -> None:
        nonlocal now, most
        with budget.kept(), budget.decoding(pixels):
            with lock:
                now += pixels
                most = max(most, now if now != pixels else 0)  # one alone may be larger
            threading.Event().wait(0.001)
            with lock:
                now -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 40, 300, 10, 90, 50] * 10))
    assert 0 < most <= 100
    assert budget._total == 0


def test_a_thread_that_has_some_goes_on_and_gives_all_back():
    budget = PixelBudget(100)
    with budget.kept():
        for _ in range(3):
            with budget.decoding(90):
                pass
        assert budget._total == 270
    assert budget._total == 0
    with budget.decoding(90):
        budget.forget()
        with budget.decoding(90):
            pass
