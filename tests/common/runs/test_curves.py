"""Curves of what a run logged."""

import imageio.v2 as imageio
import numpy as np
import pytest

from common.foundation.errors import UserError
from common.runs import curves as plots


def write_run(folder, train: str = "", evaluation: str = "") -> None:
    (folder / "train.csv").write_text(train)
    (folder / "eval.csv").write_text(evaluation)


def test_curves_show_what_was_logged(tmp_path):
    write_run(
        tmp_path,
        "step,value/loss,subgoal/loss\n100,1.0,0.5\n200,0.5,\n300,0.2,",
        "step,success,success_low,success_high\n200,0.3,0.1,0.5\n",
    )
    train, evaluation = (plots.read_csv(tmp_path / name) for name in ("train.csv", "eval.csv"))
    assert train["value/loss"].tolist() == [1.0, 0.5, 0.2]
    assert np.isnan(train["subgoal/loss"][1:]).all()
    figure = plots.training_curves(train, evaluation)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["success rate, 95 % interval", "value loss", "subgoal loss"]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [1.0, 0.5, 0.2]
    assert imageio.imread(plots.save_training_curves(tmp_path)).ndim == 3


def test_curves_without_evaluations_or_with_a_torn_line(tmp_path):
    (tmp_path / "train.csv").write_text("step,value/loss\n1,2.0\n2")
    assert plots.read_csv(tmp_path / "train.csv")["step"].tolist() == [1.0]
    assert plots.save_training_curves(tmp_path).exists()


def test_curves_of_an_empty_folder_are_an_error(tmp_path):
    with pytest.raises(UserError, match="no metrics yet"):
        plots.save_training_curves(tmp_path)
    write_run(tmp_path)
    with pytest.raises(UserError, match="no metrics yet"):
        plots.save_training_curves(tmp_path)
