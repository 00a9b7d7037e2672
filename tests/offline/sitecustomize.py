"""Python imports a module of this name before anything else: in it begins what a test starts."""

import no_network  # noqa: F401
