"""The list of planted faults follows the code: each finds its line, and its tests exist."""

import re
from pathlib import Path

from tests.mutation_faults import FAULTS

ROOT = Path(__file__).parents[2]


def test_each_fault_finds_its_line_once() -> None:
    lost = [
        fault.name
        for fault in FAULTS
        if (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) != 1
    ]
    assert not lost, "no line, or more than one; correct tests/mutation_faults*.py"


def test_the_tests_of_each_fault_exist() -> None:
    for fault in FAULTS:
        for test in fault.tests.split():
            file, _, name = test.partition("::")
            text = (ROOT / file).read_text(encoding="utf-8")
            function = name.partition("[")[0]
            assert re.search(rf"^def {function}\(" if name else "^def test_", text, re.M), (
                f"{fault.name}: there is no {test}"
            )


def test_no_two_faults_have_one_name() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
