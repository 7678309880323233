"""`torchrun ... -m training.train`: one of the processes that train a network together."""

import sys

from . import main

sys.exit(main())
