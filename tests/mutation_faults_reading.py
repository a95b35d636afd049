"""Faults of reading, and of classifiers on an encoder, for ``tests.mutations``."""

from tests.fault import Fault

ROWS = "primus_scale/data/batch_rows.py"
SET = "primus_scale/data/shard_set.py"
COLUMNS = "primus_scale/data/record_columns.py"
CLASSIFIERS = "primus_scale/evaluate/classifiers.py"

READING_FAULTS = (
    Fault(
        "reader: memory is used again while a tensor is left",
        ROWS,
        "return self._holders() != self._unused",
        "return False",
        "tests/unit/test_data_memory.py",
    ),
    Fault(
        "reader: start times of other windows",
        ROWS,
        "columns.take(rows, axis=0",
        "columns.take(rows[::-1], axis=0",
        "tests/unit/test_data_memory.py tests/unit/test_data_reader.py",
    ),
    Fault(
        "reader: a checksum is compared at the first read only",
        SET,
        'reading.crc == "always" or',
        "False or",
        "tests/unit/test_data_memory.py",
    ),
    Fault(
        "index: the file of records is not compared with its seal",
        COLUMNS,
        "if digest.hexdigest() != entry.sha256:",
        "if False:",
        "tests/unit/test_record_columns.py",
    ),
    Fault(
        "fine-tuning: nothing is kept of the first weights",
        CLASSIFIERS,
        "average.lerp(first, self._settings.kept)",
        "average",
        "tests/integration/test_evaluate_arms.py",
    ),
    Fault(
        "probe: far from its optimum",
        CLASSIFIERS,
        "PROBE_TOLERANCE = 1e-6",
        "PROBE_TOLERANCE = 1e-1",
        "tests/unit/test_evaluate_classifiers.py",
    ),
)
