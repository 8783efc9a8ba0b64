"""Workers as threads of one kernel, which talk through sockets as machines do."""

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import timedelta
from functools import partial
from weakref import proxy

from torch.distributed import HashStore, ProcessGroupGloo


def together(work: Callable, num_workers: int, timeout: float = 10.0) -> list:
    """Run `work(rank, group)` in a thread for each rank and return what they return, in order.

    `group.allreduce([t]).wait()` replaces t by its sum over all workers, where t has the same
    shape and dtype (else gloo ends the process). Raises what a worker raises, or TimeoutError.
    """
    os.environ["TORCH_FR_BUFFER_SIZE"] = "0"  # PyTorch 2.11's log of calls is not thread-safe
    store, options = HashStore(), ProcessGroupGloo._Options()
    options._devices = [ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    options._timeout = timedelta(seconds=timeout + 1)
    connect = partial(ProcessGroupGloo, store, size=num_workers, options=options)
    pool = ThreadPoolExecutor(num_workers)
    groups = dict(enumerate(pool.map(connect, range(num_workers))))
    answers = [pool.submit(work, rank, proxy(group)) for rank, group in groups.items()]
    done, silent = wait(answers, timeout, FIRST_EXCEPTION)
    for rank, answer in enumerate(answers):  # who is done hangs up, so that nobody waits for it
        answer.add_done_callback(lambda _, rank=rank: groups.pop(rank))
    pool.shutdown(wait=not silent)
    for answer in sorted(done, key=answers.index):
        answer.result()  # raises what this worker has raised
    if missing := [rank for rank, answer in enumerate(answers) if answer in silent]:
        raise TimeoutError(f"workers {missing} are late: do all workers make the same calls?")
    return [answer.result() for answer in answers]
