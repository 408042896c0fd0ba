"""The plot of golden figures: everything inside its panel, better is higher, rejected candidates beside the curve."""

from __future__ import annotations

from typing import Any

from web_app.pages.figures import golden_plot


def point(version: str, auc: float | None, ece: float = 0.05, promoted: bool = True) -> dict[str, Any]:
    return {"version": version, "auc": auc, "ece": ece, "worst_slice": auc and auc - 0.1, "promoted": promoted}


def test_without_figures_there_is_no_plot() -> None:
    assert golden_plot([]) is None
    assert golden_plot([point("a", None)]) is None


def test_points_lie_where_they_belong() -> None:
    plot = golden_plot([point("a", 0.9), point("b", 0.7, promoted=False), point("c", 0.95)])
    assert plot is not None
    upper, lower = plot.panels
    assert list(upper.curves) == ["auc", "worst_slice"]
    assert list(lower.curves) == ["ece"]
    auc = upper.curves["auc"]
    assert [dot.filled for dot in auc] == [True, False, True]
    assert auc[1].y > auc[0].y > auc[2].y
    for panel in plot.panels:
        dots = [dot for curve in panel.curves.values() for dot in curve]
        assert all(panel.top <= dot.y <= panel.bottom and plot.left < dot.x < plot.right for dot in dots)
    assert upper.bottom < lower.top < lower.bottom < plot.height


def test_one_flat_point_and_very_many() -> None:
    one = golden_plot([point("a", 1.0, ece=0.0)])
    assert one is not None
    assert len(one.names) == 1
    many = golden_plot([point(f"v{i}", 0.9) for i in range(200)])
    assert many is not None
    assert len(many.names) <= 12
