import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.kernel import ceil_div, launch, make_contiguous, next_power_of_two, send, to_nhwc


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_powers_of_two_and_blocks(count):
    power = next_power_of_two(count)
    assert power // 2 < count <= power
    assert power & (power - 1) == 0
    assert next_power_of_two(count, 16) == max(16, power)
    assert (ceil_div(count, 7) - 1) * 7 < count <= ceil_div(count, 7) * 7


def test_nothing_is_launched_for_nothing():
    launch(None, 0, torch.zeros(0))


def test_maps_that_lie_last_are_not_copied():
    y = torch.arange(24.0).view(1, 2, 3, 4)
    last = y.contiguous(memory_format=torch.channels_last)
    assert to_nhwc(last).data_ptr() == last.data_ptr()
    assert to_nhwc(y).tolist() == y.permute(0, 2, 3, 1).tolist()
    assert to_nhwc(y[:, :1]).data_ptr() == y.data_ptr()
    assert to_nhwc(y).is_contiguous()


def test_what_is_there_is_contiguous():
    assert make_contiguous(None) is None
    assert make_contiguous(torch.zeros(3, 4).T).is_contiguous()


def test_what_is_sent_arrives(device):
    assert send(torch.arange(5), torch.device(device)).cpu().tolist() == [0, 1, 2, 3, 4]
    assert send(torch.arange(5), torch.device(device)).device.type == device
