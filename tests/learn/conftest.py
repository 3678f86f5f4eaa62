"""What all tests of the learners share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run side by side, and sums do not depend on how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
