"""Sites of each datapath, for the kit."""

from tests.conformance.sites import make_site, site, switch

__all__ = ["make_site", "site", "switch"]
