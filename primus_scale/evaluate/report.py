"""The few-shot report: one HTML file that needs no other, for people to read."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from primus_scale.evaluate.arms import FINETUNE_LR_SHARE, PROBE_STRENGTHS
from primus_scale.evaluate.charts import COLOURS, accuracy_figure, paired_figure
from primus_scale.evaluate.draws import HELD_OUT_SHARE
from primus_scale.evaluate.results import (
    ARMS,
    BASELINES,
    PRETRAINED_ARMS,
    arms_of,
    format_interval,
    format_setting,
)
from primus_scale.monitor.page import as_image, render_page, scrolling_table
from primus_scale.monitor.pictures import confusion_figure

HEADLINE_K = "5"


def render_report(results: Mapping[str, Any]) -> str:
    """The report on results (``results.assemble``), single or pooled, as HTML.

    What ``evaluate`` says of encoder and data is told where the results hold it.
    """
    sections = [
        _headline(results),
        "<h2>Accuracy by number of labels</h2>",
        as_image(accuracy_figure(results), "accuracy over labels a class, by arm"),
        _table(results, "few_shot"),
        '<p class="quiet">Percent, mean and 95 % interval over people; the best arm of each column '
        "is bold.</p>",
        *_paired_sections(results),
        "<h2>Macro-F1</h2>",
        _table(results, "macro_f1"),
        *_confusion_section(results),
        "<h2>How it was measured</h2>",
        _method(results),
        "<h2>Runs, and the settings chosen in them</h2>",
        _runs(results),
    ]
    return render_page("Few-shot report", sections)


def _headline(results: Mapping[str, Any]) -> str:
    """The answer first: what pretraining gains where labels are few, and on what data."""
    k = headline_k(results)
    row = results["few_shot"][k]
    arm = next((arm for arm in PRETRAINED_ARMS if arm in row), None)
    sentence = ""
    if arm is not None:
        sentence = f"With {_labels(k)}, the {ARMS[arm]} encoder reaches {_cell(row[arm])} accuracy"
        gains = results["paired"][k].get(arm, {})
        if gains:
            sentence += "; on the same labels that is " + ", ".join(
                f"{_points(gain)} against {ARMS[baseline]}" for baseline, gain in gains.items()
            )
        sentence = f'<p class="lead">{sentence}.</p>'
    return "<h1>Few-shot classification of people never seen</h1>" + sentence + _sources(results)


def headline_k(results: Mapping[str, Any]) -> str:
    """The k that the report opens with."""
    columns = list(results["few_shot"])
    return HEADLINE_K if HEADLINE_K in columns else columns[0]


def _sources(results: Mapping[str, Any]) -> str:
    lines = []
    if encoder := results.get("encoder"):
        lines.append(
            f"Encoder <code>{html.escape(encoder['name'])}</code>, "
            f"{encoder['parameters']:,} parameters, pretrained in run "
            f"<code>{html.escape(encoder['pretraining'] or 'unnamed')}</code> on:"
            + _dataset_list(encoder["datasets"])
        )
    if data := results.get("data"):
        lines.append(
            f"Task: windows of {data['window_s']:g} s at {data['rate_hz']:g} Hz, "
            f"{len(results['classes'])} classes, from:" + _dataset_list(data["datasets"])
        )
    return "".join(f'<div class="quiet">{line}</div>' for line in lines)


def _dataset_list(datasets: Mapping[str, str]) -> str:
    items = [
        f"<li><b>{html.escape(name)}</b>{': ' + html.escape(note) if note else ''}</li>"
        for name, note in datasets.items()
    ]
    return f"<ul>{''.join(items) or '<li>not described</li>'}</ul>"


def _table(results: Mapping[str, Any], measure: str) -> str:
    table = results[measure]
    best = {k: max((row[arm]["mean"], arm) for arm in row)[1] for k, row in table.items()}
    rows = []
    for arm in arms_of(results):
        cells = [
            f'<td class="best">{_cell(row[arm])}</td>'
            if best[k] == arm
            else f"<td>{_cell(row[arm])}</td>"
            if arm in row
            else "<td>–</td>"
            for k, row in table.items()
        ]
        key = f'<span class="key" style="background:{COLOURS[arm]}"></span>'
        draws = _each([row[arm]["draws"] for row in table.values() if arm in row])
        rows.append(f"<tr><td>{key}{ARMS[arm]}</td><td>{draws}</td>{''.join(cells)}</tr>")
    heads = "".join(f"<th>k = {k}</th>" for k in table)
    return scrolling_table(
        f"<thead><tr><th>arm</th><th>draws</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    )


def _each(counts: Sequence[int]) -> str:
    """The count of all columns, or those of each where they differ."""
    return ", ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))


def _paired_sections(results: Mapping[str, Any]) -> list[str]:
    sections = []
    for arm in PRETRAINED_ARMS:
        gains = {k: row[arm] for k, row in results["paired"].items() if row.get(arm)}
        if not gains:
            continue
        rows = [_gain_row(f"over {ARMS[name]}", gains, name) for name in BASELINES]
        heads = "".join(f"<th>k = {k}</th>" for k in gains)
        sections += [
            f"<h2>Paired differences: {ARMS[arm]}</h2>",
            as_image(paired_figure(results, arm), f"gain of {ARMS[arm]} over each baseline"),
            scrolling_table(
                f"<thead><tr><th></th><th>draws</th>{heads}</tr></thead>"
                f"<tbody>{''.join(rows)}</tbody>"
            ),
        ]
    return sections


def _gain_row(title: str, gains: Mapping[str, Mapping[str, Any]], baseline: str) -> str:
    """A line of gains over one baseline, at each k; below them those of each split, if several."""
    cells = []
    for row in gains.values():
        gain = row.get(baseline)
        cell = "–" if gain is None else _points(gain)
        if gain is not None and len(gain["splits"]) > 1:
            means = ", ".join(f"{100 * mean:+.1f}" for mean in gain["splits"].values())
            cell += f"<br><small>by split: {means}</small>"
        cells.append(f"<td>{cell}</td>")
    draws = _each([row[baseline]["draws"] for row in gains.values() if baseline in row])
    return f"<tr><td>{title}</td><td>{draws}</td>{''.join(cells)}</tr>"


def _confusion_section(results: Mapping[str, Any]) -> list[str]:
    k = headline_k(results)
    pictures = [
        as_image(
            confusion_figure(np.array(counts), results["classes"], ARMS[arm]),
            f"confusion matrix of {ARMS[arm]}",
        )
        for arm, counts in results["confusion"][k].items()
    ]
    return [
        f"<h2>Confusion at k = {k}</h2>",
        '<p class="quiet">Rows are the true classes; percent of their windows, over all draws.</p>',
        f'<div class="grid">{"".join(pictures)}</div>',
    ]


def _method(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    lrs = ", ".join(f"{lr:g}" for lr in protocol["lrs"])
    penalties = ", ".join(f"{strength:g}" for strength in PROBE_STRENGTHS)
    computed = sorted({_computation(run) for run in results["runs"]})
    notes = [
        "Labels come from some people and the test from others; nobody is on both sides. All test "
        "windows count.",
        f"{protocol['draws']} draws of k windows a class, spread over people; in each draw all "
        f"arms learn from the same windows. Arms that train an encoder have the first "
        f"{protocol['trained_draws']} of them, and differences are taken on the draws that both "
        "arms have. With all labels there is one choice, so repeats show only what training "
        "leaves to chance.",
        f"What an arm leaves open is chosen at each k on {100 * HELD_OUT_SHARE:.0f} % of the label "
        "people, held out for it; the test people decide nothing.",
        "<b>Frozen</b> arms and hand-crafted features: logistic regression. Chosen by one rule for "
        f"all: the penalty 1/C, with C of {penalties}, and what standardises the features: the "
        "labelled windows, all windows of the label people (their labels unused), or nothing.",
        "<b>From scratch</b> and <b>fine-tuned</b>: the same architecture and augmentations, steps "
        f"of at most {protocol['batch']} windows, AdamW at a constant rate after a warm-up, "
        "averaged weights, gradient clipping. Rate and number of steps are chosen together: "
        f"accuracy on the held-out people is read off along one training for each rate ({lrs}; "
        f"times {FINETUNE_LR_SHARE:g} for the fine-tuned encoder, which starts with the head of a "
        f"linear probe) until it stops rising, for {protocol['steps']} steps at most.",
        f"Trained arms computed in: {html.escape('; '.join(computed))}.",
        "<b>Hand-crafted features</b>: mean, deviation, quantiles, energy, spectrum and "
        "correlations of the channels and of the sensors' magnitudes.",
        "Intervals are over people: 95 % of a bootstrap that draws the test people anew, each with "
        "the mean of his or her answers over draws and pretraining seeds, added up over splits; "
        "a person tested in two splits is one. They say how far other people might differ with "
        "labels drawn as they were.",
    ]
    if operations := results.get("augment"):
        names = ", ".join(operation["name"].replace("_", " ") for operation in operations)
        notes.insert(5, f"Augmentations of both trained arms: {html.escape(names)}.")
    return f"<ul>{''.join(f'<li>{note}</li>' for note in notes)}</ul>"


def _computation(run: Mapping[str, Any]) -> str:
    computed = run["computation"]
    return (
        f"{computed['precision']} on {computed['device']} ({computed['capability']}, "
        f"torch {computed['torch']})"
    )


def _runs(results: Mapping[str, Any]) -> str:
    """A line a run and arm: accuracy at the headline's k, and the setting chosen at each k."""
    k = headline_k(results)
    rows = []
    for run in results["runs"]:
        for arm in [arm for arm in ARMS if arm in run["settings"][k]]:
            accuracy = [
                record["accuracy"]
                for record in results["records"]
                if (record["k"], record["arm"]) == (k, arm)
                and (record["split"], record["pretraining_seed"])
                == (run["split"], run["pretraining_seed"])
            ]
            settings = "; ".join(format_setting(row[arm]) for row in run["settings"].values())
            rows.append(
                f"<tr><td>split {run['split']}, pretraining seed {run['pretraining_seed']}</td>"
                f"<td>{len(run['label_people'])} / {len(run['test_people'])}</td>"
                f"<td>{run['label_windows']:,} / {run['test_windows']:,}</td>"
                f"<td>{ARMS[arm]}</td><td>{100 * np.mean(accuracy):.1f}</td>"
                f"<td>{settings}</td></tr>"
            )
    all_k = ", ".join(results["few_shot"])
    head = (
        "<thead><tr><th>run</th><th>people, label / test</th><th>windows, label / test</th>"
        f"<th>arm</th><th>accuracy at k = {k}</th><th>settings at k = {all_k}</th></tr></thead>"
    )
    return scrolling_table(f"{head}<tbody>{''.join(rows)}</tbody>")


def _cell(interval: Mapping[str, float]) -> str:
    mean, _, rest = format_interval(interval).partition(" ")
    return f"{mean} <small>{rest}</small>"


def _points(interval: Mapping[str, float]) -> str:
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} <small>[{low:+.1f}, {high:+.1f}]</small>"


def _labels(k: str) -> str:
    return "all labels" if k == "all" else f"{k} label{'s' * (k != '1')} a class"
