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
read_range = Folder.read_range
reads = 0


def read_or_block(folder: Folder, name: str, offset: int, length: int) -> bytes:
    global reads
    reads += 1
    if os.environ["RANK"] == "1" and reads > blocked_from:
        mouth, _ = os.pipe()
        os.read(mouth, 1)
    return read_range(folder, name, offset, length)


Folder.read_range = read_or_block
exit_rank(main(arguments))
