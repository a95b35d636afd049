"""The few-shot report: one HTML file that needs no other, and the same as Markdown.

The pages are ``templates/report.html`` and ``templates/report.md``; this module computes their
numbers and charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from primus_scale.evaluate.arm_table import pairs_of
from primus_scale.evaluate.baseline_arms import TREES
from primus_scale.evaluate.charts import accuracy_chart, forest_chart, people_chart
from primus_scale.evaluate.draws import HELD_OUT_SHARE
from primus_scale.evaluate.feature_map import map_chart
from primus_scale.evaluate.lead import headline_arm, headline_k, lead
from primus_scale.evaluate.lora import RANK
from primus_scale.evaluate.people import accuracy_of_people, count_gaining
from primus_scale.evaluate.probe_arm import PROBE_STRENGTHS
from primus_scale.evaluate.report_tables import (
    arm_rows,
    audit_lines,
    computation,
    cost_rows,
    draws_of_arms,
    gain_row,
    mixed_rows,
    percent,
    retrieval_rows,
    run_rows,
)
from primus_scale.evaluate.results import arms_of, marked_arms, who_is_tested
from primus_scale.evaluate.trained_arm import FINETUNE_LR_SHARE
from primus_scale.monitor.drawing import TwoWidths, as_svg, two_widths
from primus_scale.monitor.page import render_markdown, render_page
from primus_scale.monitor.pictures import confusion_chart
from primus_scale.storage.files import write_atomically

PAGE_FILE, MARKDOWN_FILE = "report.html", "report.md"
FIGURES_FOLDER = "report_figures"  # of the Markdown file
_PACKAGE = "primus_scale.evaluate"


def render_report(results: Mapping[str, Any]) -> str:
    """The report on results (``results.assemble``), single or pooled, as HTML.

    Encoder and data are described where the results hold what ``evaluate`` adds.
    """
    return render_page(_PACKAGE, "report.html", **_gather(results))


def render_files(results: Mapping[str, Any]) -> dict[str, str]:
    """The report as files, by path in a folder: HTML, Markdown, and the figures of the latter."""
    gathered = _gather(results)
    figures = {"accuracy": gathered["accuracy_chart"].wide}
    if gathered["people"]:
        figures["people"] = gathered["people"]["chart"].wide
    if gathered["map"]:
        figures["map"] = gathered["map"].wide
    for number, pair in enumerate(gathered["paired"], start=1):
        figures[f"differences{number}"] = pair["chart"].wide
    if gathered["zero_shot"]:
        figures["zero_shot"] = gathered["zero_shot"]["panel"]["chart"]
    for number, panel in enumerate(gathered["confusion"], start=1):
        figures[f"confusion{number}"] = panel["chart"]
    return render_both(_PACKAGE, "report", gathered, figures)


def render_both(
    package: str, template: str, shown: Mapping[str, Any], figures: Mapping[str, bytes]
) -> dict[str, str]:
    """A page and its Markdown, from the templates of one name, with the figures of the latter.

    shown: what the templates show. figures: SVG by name. By path in a folder, for ``write_files``.
    """
    return {
        PAGE_FILE: render_page(package, f"{template}.html", **shown),
        MARKDOWN_FILE: render_markdown(package, f"{template}.md", figures=FIGURES_FOLDER, **shown),
        **{f"{FIGURES_FOLDER}/{name}.svg": chart.decode() for name, chart in figures.items()},
    }


def wide_charts(shown: Mapping[str, Any]) -> dict[str, bytes]:
    """The wide forms of the charts in ``shown``, as figures: ``rank_chart`` is named ``rank``."""
    return {
        name.removesuffix("_chart"): chart.wide
        for name, chart in shown.items()
        if isinstance(chart, TwoWidths)
    }


def write_files(out: Path, files: Mapping[str, str]) -> None:
    """Write a page, its Markdown and its figures; what lies there of an earlier page is deleted."""
    for earlier in (out / PAGE_FILE, out / MARKDOWN_FILE):
        earlier.unlink(missing_ok=True)
    for figure in (out / FIGURES_FOLDER).glob("*.svg"):
        figure.unlink()
    for name, content in files.items():
        write_atomically(out / name, content)


def _gather(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates show."""
    k, arms, found = headline_k(results), arms_of(results), results.get("map")
    return {
        "columns": list(results["few_shot"]),
        "k": k,
        "lead": lead(results),
        "tested": who_is_tested(results),
        "audits": list(audit_lines(results)),
        "encoder": results.get("encoder"),
        "data": results.get("data"),
        "classes": results["classes"],
        "accuracy_chart": two_widths(accuracy_chart, results),
        "accuracy": arm_rows(results, "few_shot"),
        "macro_f1": arm_rows(results, "macro_f1"),
        "draws": draws_of_arms(results),
        "paired": list(_paired(results)),
        "people": _people(results, k),
        "map": two_widths(map_chart, found, results["classes"]) if found else None,
        "mapped": len(found["x"]) if found else 0,
        "mixed": list(mixed_rows(results)),
        "zero_shot": _zero_shot(results),
        "retrieval": list(retrieval_rows(results)),
        "examples": next(
            (run["examples"] for run in results.get("retrieval", ()) if run.get("examples")), {}
        ),
        "confusion": list(_confusion(results, k)),
        "cost": cost_rows(results),
        "protocol": results["protocol"],
        "held_out_share": HELD_OUT_SHARE,
        "arms": arms,
        "collapsed": marked_arms(results, "collapsed"),
        "strengths": PROBE_STRENGTHS,
        "trees": TREES,
        "finetune_lr_share": FINETUNE_LR_SHARE,
        "lora_rank": RANK,
        "augment": [one["name"].replace("_", " ") for one in results.get("augment") or ()],
        "computed": sorted({computation(run) for run in results["runs"]}),
        "runs": list(run_rows(results, k)),
    }


def _paired(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The gains of each pretrained or own arm over the baselines, at every k."""
    arms = arms_of(results)
    for arm, baselines in pairs_of(arms).items():
        columns = {k: row[arm] for k, row in results["paired"].items() if row.get(arm)}
        if columns:
            rows = list(columns.values())
            yield {
                "arm": arms[arm].title,
                "chart": two_widths(forest_chart, results, arm),
                "columns": list(columns),
                "rows": [
                    {"baseline": arms[name].title, **gain_row(name, rows)}
                    for name in baselines
                    if any(name in row for row in rows)
                ],
            }


def _zero_shot(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures of the zero-shot classification, if there was one."""
    found = results.get("zero_shot")
    if found is None:
        return None
    alone = [one for record in found["records"] for one in record["by_wording"]]
    return {
        "accuracy": percent(found["accuracy"]),
        "macro_f1": percent(found["macro_f1"]),
        "chance": f"{100 * found['chance']:.1f}",
        "alone": [f"{100 * end:.1f}" for end in (min(alone), max(alone))],
        "prompts": found["prompts"],
        "panel": _panel("zero-shot", found["confusion"], results["classes"]),
    }


def _confusion(results: Mapping[str, Any], k: str) -> Iterator[dict[str, Any]]:
    """A panel for each arm; all have the same size."""
    arms = arms_of(results)
    for arm, counts in results["confusion"][k].items():
        yield _panel(arms[arm].title, counts, results["classes"])


def _panel(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    """A confusion matrix, and the least width at which its letters are readable."""
    chart = confusion_chart(np.array(counts), classes, "")
    return {"title": title, "chart": as_svg(chart), "width_rem": 4.6 * chart.get_figwidth()}


def _people(results: Mapping[str, Any], k: str) -> dict[str, Any] | None:
    """Accuracy by person at ``k``; None with one person, who is in the tables already."""
    found, arms, ours = accuracy_of_people(results, k), arms_of(results), headline_arm(results)
    if max(len(of_person) for of_person in found.values()) < 2:
        return None
    rows = []
    for arm, of_person in found.items():
        values = np.array(list(of_person.values()))
        compared = arm in results["paired"][k].get(str(ours), {})
        rows.append(
            {
                "arm": arms[arm].title,
                "ends": [f"{100 * value:.1f}" for value in np.quantile(values, (0, 0.5, 1))],
                "worst": min(of_person, key=lambda person: of_person[person]),
                "gaining": count_gaining(results, k, str(ours), arm) if compared else None,
            }
        )
    return {
        "chart": two_widths(people_chart, results, k),
        "rows": rows,
        "ours": arms[ours].title if ours else "",
    }
