"""The command ``primus-scale`` with no more than 8 GiB of addresses."""

import resource
import sys

from primus_scale.cli import main

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
    sys.exit(main(sys.argv[1:]))
