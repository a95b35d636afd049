"""The faults of ``tests.mutations``: one-line changes, each with the tests that are to notice it.

A fault whose line is gone is an error: the list must follow the code.
"""

from tests.fault import Fault
from tests.mutation_faults_reading import READING_FAULTS

LOSS = "primus_scale/objective/contrast.py"
PAIRS = "primus_scale/objective/pairs.py"
COLLECTIVES = "primus_scale/distributed/collectives.py"
SCHEDULE = "primus_scale/data/schedule.py"
EPOCHS = "primus_scale/data/epoch_order.py"
SESSIONS = "primus_scale/data/session_order.py"
NEAR = "primus_scale/objective/near.py"
STEP = "primus_scale/train/step.py"
TRAINER = "primus_scale/train/trainer.py"
RUN = "primus_scale/train/run.py"
AUGMENT = "primus_scale/augment.py"
GATES = "shards/signal/gates.py"
UNITS = "primus_scale/signal/units.py"
FILES = "primus_scale/storage/files.py"
ORDER = "shards/embed/order.py"
NUMERICS, UNIT, RANKS, WHOLE = (
    f"tests/{folder}/test_" for folder in ("numerics", "unit", "distributed", "integration")
)

FAULTS = (
    Fault(
        "loss: a sign",
        LOSS,
        "row_sums.log() + own_columns - 2 *",
        "row_sums.log() - own_columns - 2 *",
        f"{NUMERICS}losses.py",
    ),
    Fault(
        "loss: one direction has no gradient",
        LOSS,
        "(of_rows[rows, None] + of_columns)",
        "(of_rows[rows, None] + 0 * of_columns)",
        f"{NUMERICS}losses.py",
    ),
    Fault(
        "loss: the columns of one block only",
        LOSS,
        "columns if before is None else before + columns",
        "columns",
        f"{NUMERICS}losses.py",
    ),
    Fault(
        "loss: the columns of one rank only",
        LOSS,
        "column_logsums = messages.logsumexp(0)",
        "column_logsums = messages[rank()]",
        f"{RANKS}gradients.py",
    ),
    Fault(
        "loss: invalid keys are negatives",
        LOSS,
        "        excluded |= ~self.valid\n",
        "",
        f"{NUMERICS}losses.py",
    ),
    Fault(
        "loss: equal keys are negatives",
        LOSS,
        "excluded = own[rows, None] == self.ids",
        "excluded = torch.zeros_like(values, dtype=torch.bool)",
        f"{NUMERICS}losses.py",
    ),
    Fault(
        "loss: multiplied by the temperature",
        PAIRS,
        "(queries / temperature) @ keys.T",
        "(queries * temperature) @ keys.T",
        f"{NUMERICS}losses.py",
    ),
    Fault(
        "loss: a share that is not of all ranks",
        LOSS,
        "total * world_size() / rows.clamp(min=1)",
        "total / rows.clamp(min=1)",
        f"{RANKS}gradients.py",
    ),
    Fault(
        "gather: ranks in the wrong order",
        COLLECTIVES,
        "(rows, local.contiguous())\n    return rows",
        "(rows, local.contiguous())\n    return rows.roll(len(local), 0)",
        f"{RANKS}gradients.py",
    ),
    Fault(
        "gather: the gradient of the own loss only",
        COLLECTIVES,
        '_named("reduce_scatter_single", "reduce_scatter_tensor")(mine, grad.contiguous())',
        "mine.copy_(grad.chunk(world_size())[rank()])",
        f"{RANKS}gradients.py",
    ),
    Fault(
        "schedule: the seed is not used",
        EPOCHS,
        "permutation(len(self.windows_per_record), self._seed, epoch)",
        "permutation(len(self.windows_per_record), 0, epoch)",
        f"{UNIT}data_schedule.py",
    ),
    Fault(
        "schedule: the second batch is the first",
        SCHEDULE,
        "divmod(step * self._batch, self._order.windows)",
        "divmod(max(step - 1, 0) * self._batch, self._order.windows)",
        f"{UNIT}data_schedule.py",
    ),
    Fault(
        "sessions: pairs that are not near",
        SESSIONS,
        "pairs += [(first, first + distance)",
        "pairs += [(first, start + stop - 1 - first)",
        f"{UNIT}session_order.py",
    ),
    Fault(
        "sessions: what goes over is lost",
        SESSIONS,
        "rest = join([before.take(",
        "rest = join([before.take(slice(0)) if group else before.take(",
        f"{UNIT}session_order.py",
    ),
    Fault(
        "near: positives of another session",
        NEAR,
        "positives=one_session & one_recording & near & known",
        "positives=one_recording & near & known",
        f"{NUMERICS}near.py",
    ),
    Fault(
        "near: windows that are not far are negatives",
        NEAR,
        "session_negatives=one_session & ~not_far",
        "session_negatives=one_session & ~(not_far & near)",
        f"{NUMERICS}near.py",
    ),
    Fault(
        "schedule: a window twice in a batch",
        SCHEDULE,
        "np.isin(self._numbers(drawn), self._numbers(in_batch))",
        "np.isin(self._numbers(drawn), self._numbers(in_batch)[:-1])",
        f"{UNIT}data_schedule.py",
    ),
    Fault(
        "views: all ranks draw the same",
        RUN,
        "first = self.runtime.rank * len(batch)",
        "first = 0",
        f"{WHOLE}zero.py::test_loss_curve_on_two_ranks_is_that_of_one",
    ),
    Fault(
        "views: the seed is not used",
        AUGMENT,
        'hash64(f"augment/{seed}/{step}")',
        'hash64(f"augment/{step}")',
        f"{WHOLE}golden.py {UNIT}augment.py",
    ),
    Fault(
        "views: a flip keeps angular velocity",
        AUGMENT,
        "-1.0 if unit == ANGULAR_VELOCITY else 1.0",
        "1.0 if unit == ANGULAR_VELOCITY else 1.0",
        f"{UNIT}augment.py {NUMERICS}reversed_motion.py",
    ),
    Fault(
        "views: axes swapped before a turn",
        AUGMENT,
        "imu.view(batch, channels // 3, 3, samples)",
        "imu.view(batch, 3, channels // 3, samples).transpose(1, 2)",
        f"{NUMERICS}rotation.py",
    ),
    Fault(
        "step: gradients of passes count twice",
        STEP,
        "share = _gradient(self.output.temperatures[name]) / len(self._chunks)",
        "share = _gradient(self.output.temperatures[name])",
        f"{NUMERICS}accumulation.py",
    ),
    Fault(
        "step: a bad step enters the support set",
        STEP,
        "        if support is not None:\n            support.enqueue(support_entries(",
        "    if support is not None:\n        support.enqueue(support_entries(",
        f"{WHOLE}nonfinite.py",
    ),
    Fault(
        "step: one rank leaves a step out alone",
        STEP,
        "finite = _finite_on_all_ranks(loss.total)",
        "finite = bool(torch.isfinite(loss.total))",
        f"{WHOLE}nonfinite.py::test_run_counts_the_bad_step_and_ends",
    ),
    Fault(
        "rate: the schedule is a step ahead",
        TRAINER,
        "learning_rate(step - 1, config.optimizer",
        "learning_rate(step, config.optimizer",
        f"{WHOLE}golden.py",
    ),
    Fault(
        "resume: data from the beginning",
        TRAINER,
        "run.batches(start_step)",
        "run.batches(0)",
        f"{WHOLE}resume.py",
    ),
    Fault(
        "resume: views of other steps",
        TRAINER,
        "run.views(batch, step)",
        "run.views(batch, step - start_step)",
        f"{WHOLE}resume.py",
    ),
    Fault(
        "resume: an empty support set",
        "primus_scale/checkpoint/checkpoints.py",
        "support.load(folder / SUPPORT)",
        "pass",
        f"{WHOLE}resume.py",
    ),
    Fault(
        "calibration: not given to the encoder",
        "primus_scale/train/export.py",
        "encoder.calibration = FeatureCalibration.of(fitted, kind)",
        "FeatureCalibration.of(fitted, kind)",
        f"{UNIT}run_export.py",
    ),
    Fault(
        "calibration: windows from the first records only",
        "primus_scale/data/reader.py",
        "rows.take(_spread(count, min(most or count, count)))",
        "rows.take(slice(0, min(most or count, count)))",
        f"{UNIT}run_export.py",
    ),
    Fault(
        "calibration: bfloat16 where autocast is on",
        "primus_scale/encoders/calibration.py",
        "torch.autocast(features.device.type, enabled=False)",
        "torch.autocast(features.device.type, dtype=torch.bfloat16)",
        f"{UNIT}run_export.py",
    ),
    Fault(
        "checkpoint: contents are not checked",
        "primus_scale/checkpoint/manifest.py",
        "or file_entry(path) != entry",
        "or False",
        f"{WHOLE}checkpoint.py",
    ),
    Fault(
        "files: written in place",
        FILES,
        'with partial.open("w", encoding="utf-8")',
        'with path.open("w", encoding="utf-8")',
        f"{UNIT}files.py",
    ),
    Fault(
        "files: not on disk before the rename",
        FILES,
        "                os.fsync(file.fileno())\n",
        "",
        f"{UNIT}files.py",
    ),
    Fault(
        "lock: not taken",
        "primus_scale/distributed/only_run.py",
        "on_first_rank(lock.acquire)",
        "on_first_rank(lambda: None)",
        f"{WHOLE}run_lock.py::test_second_run_is_refused_and_the_first_goes_on",
    ),
    Fault(
        "names: a way out of the folder",
        "primus_scale/storage/names.py",
        'part in ("", ".", "..")',
        'part in ("", ".")',
        f"{UNIT}names.py",
    ),
    Fault(
        "units: degrees",
        UNITS,
        "DEGREE = math.pi / 180",
        "DEGREE = math.pi / 200",
        f"{UNIT}readers.py {UNIT}signal.py {UNIT}reader_ego4d.py",
    ),
    Fault(
        "units: a sixty-fourth of g",
        UNITS,
        "GRAVITY / 64",
        "GRAVITY / 32",
        f"{UNIT}reader_ppg_dalia.py {UNIT}signal.py",
    ),
    Fault(
        "gates: full scale passes",
        GATES,
        "if segment.saturated[columns].any():",
        "if segment.saturated[columns].all():",
        f"{UNIT}gates.py",
    ),
    Fault(
        "gates: windows reach out of the samples",
        GATES,
        "TOLERANCE_S = 1e-6",
        "TOLERANCE_S = 1.0",
        f"{UNIT}gates.py {UNIT}windows.py",
    ),
    Fault(
        "packing: a part is one stretch of its session",
        ORDER,
        "chunks[number::parts]",
        "chunks[number * len(chunks) // parts : (number + 1) * len(chunks) // parts]",
        f"{UNIT}packing_order.py",
    ),
    Fault(
        "packing: windows of a session in any order",
        ORDER,
        "np.lexsort((windows.start_s, windows.recording, windows.session))",
        "np.argsort(windows.session, kind='stable')",
        f"{UNIT}packing_order.py",
    ),
    Fault(
        "verify: sessions are believed",
        "shards/write/verify.py",
        "place.sessions is None or place.sessions == found",
        "True",
        f"{UNIT}session_parts.py {UNIT}index_fuzz.py",
    ),
    Fault(
        "support: a window is its own neighbour",
        "primus_scale/sample.py",
        "(self.uid == other.uid) | near",
        "(self.uid != self.uid) | near",
        f"{UNIT}support.py {NUMERICS}neighbours.py",
    ),
    Fault(
        "support: the session mask is turned round",
        "primus_scale/support/base.py",
        "excluded |= querying.session != entries.session",
        "excluded |= querying.session == entries.session",
        f"{NUMERICS}neighbours.py",
    ),
    Fault(
        "support: the ring keeps one too many",
        "primus_scale/support/part.py",
        "max(0, added - self.spec.capacity)",
        "max(0, added - self.spec.capacity - 1)",
        f"{UNIT}support.py {NUMERICS}neighbours.py",
    ),
    Fault(
        "lag: the picture is shifted the wrong way",
        "shards/lag/measure.py",
        "self.frames.times_s() - self.lag_s",
        "self.frames.times_s() + self.lag_s",
        f"{UNIT}windows.py {NUMERICS}lag.py",
    ),
    Fault(
        "resampling: a grid that is late by half a sample",
        "primus_scale/signal/resample.py",
        "np.arange(start, stop) / fine_hz",
        "(np.arange(start, stop) + 0.5) / fine_hz",
        f"{NUMERICS}resample.py",
    ),
    Fault(
        "encoder: attention over heads",
        "primus_scale/encoders/transformer.py",
        "mixed.transpose(1, 2).reshape(batch",
        "mixed.reshape(batch",
        f"{UNIT}encoders.py",
    ),
    Fault(
        "encoder: statistics pool the deviation of the wrong number of samples",
        "primus_scale/encoders/pooling.py",
        "return mean, centred.square().mean(dim=2)",
        "return mean, centred.square().sum(dim=2) / (centred.shape[2] - 1)",
        f"{NUMERICS}pooled_statistics.py {UNIT}encoders.py",
    ),
    Fault(
        "statistics: resamples spread as if people were many",
        "primus_scale/evaluate/statistics.py",
        "np.sqrt(people / (people - 1)) * t",
        "t",
        f"{UNIT}evaluate_statistics.py",
    ),
    Fault(
        "evaluation: people on both sides",
        "primus_scale/evaluate/draws.py",
        'Spans("label/", label.person), Spans("test/", test.person)',
        'Spans("label/", label.person[:0]), Spans("test/", test.person)',
        f"{WHOLE}evaluate_protocol.py::test_people_on_both_sides_are_refused",
    ),
    Fault(
        "evaluation: a lucky setting is taken",
        "primus_scale/evaluate/arms.py",
        "gains.mean(axis=-1) > error",
        "gains.mean(axis=-1) > 0",
        f"{WHOLE}evaluate_arms.py::test_the_usual_setting_stays_unless_another_is_clearly_better",
    ),
    Fault(
        "encode: a unit's factor is lost",
        "primus_scale/encoders/pretrained.py",
        "signal * unit_factors(given)[:, None]",
        "signal * 1.0",
        f"{UNIT}encode.py::test_features_are_those_of_the_shard_path",
    ),
    Fault(
        "encode: columns in the array's order",
        "primus_scale/encoders/array_input.py",
        "return [names.index(name) for name in wanted]",
        "return list(range(len(wanted)))",
        f"{UNIT}encode.py::test_layouts_are_equal",
    ),
    Fault(
        "regression: each rank's mean is over its own rows",
        "primus_scale/objective/loss.py",
        "global_rows = gathered.present[term.modality].sum()",
        "global_rows = 2 * valid.sum()",
        f"{RANKS}gradients.py",
    ),
    Fault(
        "signal teacher: large groups of features rule the cosine",
        "primus_scale/teachers/handcrafted.py",
        "(group.spread * np.sqrt(features.shape[1]))",
        "group.spread",
        f"{UNIT}teachers_handcrafted.py",
    ),
    Fault(
        "retrieval: a rank's queries count for all",
        "primus_scale/monitor/retrieval.py",
        "share.double() * len(own)",
        "share.double() * len(queries)",
        f"{RANKS}retrieval_ranks.py",
    ),
    *READING_FAULTS,
)
