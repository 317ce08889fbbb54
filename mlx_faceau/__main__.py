"""``python -m mlx_faceau`` is the command line."""

import sys

from mlx_faceau.cli.main import main

sys.exit(main())
