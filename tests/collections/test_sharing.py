from __future__ import annotations

import threading

from bindery.collections.sharing import SharedLock

WAIT_S = 5


def test_readers_are_inside_together() -> None:
    lock, both = SharedLock(), threading.Barrier(2)

    def read() -> None:
        with lock.shared():
            both.wait(WAIT_S)  # broken unless the other reader is inside as well

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not both.broken


def test_a_writer_is_alone_and_goes_before_new_readers() -> None:
    lock = SharedLock()
    order: list[str] = []
    writer_waits, reader_inside = threading.Event(), threading.Event()

    def first_reader() -> None:
        with lock.shared():
            reader_inside.set()
            writer_waits.wait(WAIT_S)
            order.append("first reader")

    def writer() -> None:
        with lock.alone():
            order.append("writer")

    def late_reader() -> None:
        with lock.shared():
            order.append("late reader")

    threads = [threading.Thread(target=target) for target in (first_reader, writer, late_reader)]
    threads[0].start()
    reader_inside.wait(WAIT_S)
    threads[1].start()
    while not lock._writers_waiting:
        threading.Event().wait(0.001)
    threads[2].start()
    writer_waits.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["first reader", "writer", "late reader"]


def test_an_error_inside_lets_the_lock_go() -> None:
    lock = SharedLock()
    for way in (lock.shared, lock.alone):
        try:
            with way():
                raise KeyError
        except KeyError:
            pass
    with lock.alone():
        pass
