"""The node with a device whose memory runs out: as `renderocc_node`, but where the file that the variable
RENDEROCC_EXHAUSTED names exists, each frame ends in the error that CUDA raises. Machines without a GPU have no other
way to show what the node does then.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "RENDEROCC_EXHAUSTED"


def main() -> int:
    import torch

    from renderocc_ros import main as program
    from renderocc_ros.frame.pipeline import FramePipeline

    process = FramePipeline.process

    def exhausted(self, matched, calibrations):
        if os.path.exists(os.environ.get(VARIABLE, "")):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (injected by the campaign)")
        return process(self, matched, calibrations)

    FramePipeline.process = exhausted
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
