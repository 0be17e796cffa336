import threading

import torch

from featbench.refinement.random_numbers import drawing_from, generator

CPU = torch.device("cpu")


def draw():
    return torch.rand(3, generator=generator(CPU))


def test_the_seed_decides_what_is_drawn_and_draws_follow_each_other():
    expected = torch.rand(6, generator=torch.Generator().manual_seed(7))
    for _ in range(2):
        with drawing_from(7):
            assert torch.equal(torch.cat([draw(), draw()]), expected)


def test_each_thread_has_its_own_work():
    found = {}

    def work(seed):
        with drawing_from(seed):
            barrier.wait()
            found[seed] = draw()
            barrier.wait()
            found[seed] = torch.cat([found[seed], draw()])

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        assert torch.equal(found[seed], torch.rand(6, generator=torch.Generator().manual_seed(seed)))


def test_work_inside_other_work_gives_the_outer_generator_back():
    with drawing_from(1):
        first = draw()
        with drawing_from(2):
            draw()
        second = draw()
    assert torch.equal(torch.cat([first, second]), torch.rand(6, generator=torch.Generator().manual_seed(1)))


def test_an_error_ends_the_work():
    try:
        with drawing_from(1):
            raise KeyError
    except KeyError:
        pass
    assert generator(CPU) is torch.default_generator


def test_outside_of_any_work_torch_s_own_generator_draws():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(draw(), torch.rand(3, generator=torch.Generator().manual_seed(3)))


def test_a_device_may_be_named():
    with drawing_from(7):
        assert generator("cpu") is generator(CPU)
    assert generator("cpu") is torch.default_generator
