"""A calibration's report as text."""

from __future__ import annotations

from typing import Any


def text(report: dict[str, Any]) -> str:
    """What a terminal shows; all of U in nats."""
    lines = [
        f"{report['answers']} answers, {report['segments']} segments, {report['truncated']} answers cut off at the "
        f"limit of tokens; temperature {report['temperature']:g}",
        "",
        "segment   draws   mean U    std    median    95 %",
    ]
    for index, one in enumerate(report["by_segment"]):
        u = one["u"]
        quantiles = f"{u['quantiles']['0.5']:8.2f} {u['quantiles']['0.95']:7.2f}"
        lines.append(f"{index:7} {one['draws']:7} {u['mean']:8.2f} {u['std']:6.2f}  {quantiles}")
    chosen = report["threshold"]
    lines += ["", f"k = {chosen['k']:g} erases {chosen['erased']:.1%} of first draws"]
    lines += _graded(report["discrimination"]) if report["discrimination"] else _ungraded(chosen)
    return "\n".join(lines) + "\n"


def _ungraded(chosen: dict[str, Any]) -> list[str]:
    return ["     k   erased", *(f"{row['k']:6.2f} {row['erased']:8.1%}" for row in chosen["by_rate"])]


def _graded(found: dict[str, Any]) -> list[str]:
    lines = ["     k   erased   answers   of them wrong   of the wrong ones"]
    for row in found["by_threshold"]:
        shares = f"{_share(row['answers']):>9} {_share(row['precision']):>15} {_share(row['recall']):>19}"
        lines.append(f"{row['k']:6.2f} {row['erased']:8.1%} {shares}")
    lines += ["", f"{found['right']} of {found['graded']} graded answers are right"]
    if found["ungradable"]:
        lines.append(f"{found['ungradable']} had no answer that could be checked, and count as wrong")
    for name, area in found["auroc"].items():
        title = name.replace("_", " ").replace(" u", " U")
        if area is None:
            lines.append(f"AUROC of {title}: none, all answers are alike")
        else:
            lines.append(f"AUROC of {title}: {area['value']:.3f} ± {area['standard_error']:.3f} (standard error)")
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
