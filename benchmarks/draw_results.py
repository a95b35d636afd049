"""Draw the accuracy chart of committed results, as README shows it.

The first argument is the results file, which may be gzipped, the second the SVG file to write; both
lie in docs/figures, where few_shot.svg is drawn from few_shot_fifth.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import gzip
import json
from pathlib import Path

from primus_scale.evaluate.charts import accuracy_chart
from primus_scale.monitor.drawing import as_svg


def main() -> None:
    """Read a results file, which may be gzipped, and write the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.draw_results", description=__doc__)
    parser.add_argument("results", type=Path, help="few_shot.json or few_shot.json.gz")
    parser.add_argument("chart", type=Path, help="SVG file to write")
    args = parser.parse_args()
    args.chart.write_bytes(draw_results(args.results))
    print(f"chart    {args.chart}")


def draw_results(path: Path) -> bytes:
    """The chart of the results in ``path``, as SVG; the same bytes for the same results."""
    stored = path.read_bytes()
    results = json.loads(gzip.decompress(stored) if path.suffix == ".gz" else stored)
    return as_svg(accuracy_chart(results))


if __name__ == "__main__":
    main()
