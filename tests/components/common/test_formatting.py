from components.common.formatting import gain, measure, percent, points_with_interval, with_interval


def test_figures_are_written_in_one_way() -> None:
    share = {"value": 0.95823, "low": 0.93594, "high": 0.97771}
    assert percent(0.95823) == "95.82 %"
    assert with_interval(share) == measure(share, "balanced_accuracy") == "95.82 % [93.59, 97.77]"
    assert measure(share, "auc") == "0.9582 [0.9359, 0.9777]"
    difference = {"value": -0.00001, "low": -0.0223, "high": 0.0167}
    assert points_with_interval(difference) == "+0.00 [-2.23, +1.67]"
    assert gain(difference, "accuracy") == "+0.00 points [-2.23, +1.67]"
    assert gain(difference, "auc") == "+0.0000 [-0.0223, +0.0167]"
    assert measure({"value": None, "low": None, "high": None}, "auc") == "\u2013"
