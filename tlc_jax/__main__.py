"""`python -m tlc_jax` is `tlc`."""

import sys

from tlc_jax.cli.main import main

sys.exit(main())
