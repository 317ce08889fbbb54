"""The learning rate of a step."""

import pytest

from mlx_faceau.train.loop import averaging_decay, learning_rate


def test_the_rate_rises_evenly_over_the_first_twentieth_of_the_steps() -> None:
    rates = [learning_rate(step, 200, 1.0) for step in range(10)]
    assert rates == pytest.approx([0.1 * (step + 1) for step in range(10)])


def test_half_way_down_the_rate_is_half_way_between_peak_and_end() -> None:
    # Warm-up takes 10 of 210 steps (5 % is 10.5, rounded to 10); step 109 is the 100th of 200.
    assert learning_rate(109, 210, 1.0) == pytest.approx(0.505)


def test_the_last_step_gets_one_hundredth_of_the_peak_and_so_do_later_ones() -> None:
    assert learning_rate(199, 200, 0.002) == pytest.approx(2e-5)
    assert learning_rate(500, 200, 0.002) == pytest.approx(2e-5)


def test_the_rate_never_rises_after_the_warm_up() -> None:
    rates = [learning_rate(step, 100, 1.0) for step in range(4, 100)]
    assert rates == sorted(rates, reverse=True)


def test_a_training_of_one_step_takes_it_at_the_peak() -> None:
    assert learning_rate(0, 1, 0.5) == 0.5


def test_the_average_forgets_the_first_weights_and_then_keeps_its_decay() -> None:
    assert averaging_decay(0, 0.999) == pytest.approx(0.1)
    assert averaging_decay(90, 0.999) == pytest.approx(0.91)
    assert averaging_decay(10**6, 0.999) == 0.999
