"""One rank whose data source blocks from some record on, for good, as a dead network mount does.

    python tests/integration/train_on_pipe.py RECORD --config FILE

RECORD: number of the record from which on the rank 1 reads no more; its reads wait on a pipe into
which nobody writes.
"""

import os
import sys

from launch.deepspeed_train import exit_rank, main
from primus_scale.storage.folder import Folder

blocked_from, arguments = int(sys.argv[1]), sys.argv[2:]
read_range_into = Folder.read_range_into
reads = 0


def read_or_block(folder: Folder, buffer: memoryview, name: str, offset: int) -> int:
    global reads
    reads += 1
    if os.environ["RANK"] == "1" and reads > blocked_from:
        mouth, _ = os.pipe()
        os.read(mouth, 1)
    return read_range_into(folder, buffer, name, offset)


Folder.read_range_into = read_or_block
exit_rank(main(arguments))
